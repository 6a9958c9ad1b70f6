package nvmeconformance

import (
	"bytes"
	"strings"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

const identifyController = "Base 2.0, 5.17.2.1"

// identifyControllerChecks are those of what Identify Controller says.
func identifyControllerChecks() (checks []Check) {
	add := func(rule string, run func(t *T, id []byte)) {
		checks = append(checks, Check{identifyController, "Identify Controller, " + rule, func(t *T) { run(t, t.identify(1, 0)) }, false})
	}
	config := func(t *T, off uint64) uint16 {
		v, err := t.dev.ReadRegion16(t.ctx, client.RegionConfig, off)
		if err != nil {
			t.fatalf("%v", err)
		}
		return v
	}
	add("VID is that of the PCI function", func(t *T, id []byte) { equal(t, "VID", t.u16(id, 0), config(t, 0)) })
	add("SSVID is that of the PCI function", func(t *T, id []byte) { equal(t, "SSVID", t.u16(id, 2), config(t, 0x2c)) })
	for _, f := range []struct {
		name     string
		from, to int
	}{{"SN", 4, 24}, {"MN", 24, 64}, {"FR", 64, 72}} {
		add(f.name+" is printable ASCII padded with spaces", func(t *T, id []byte) { t.text(f.name, id[f.from:f.to]) })
	}
	add("FR is the revision in the active slot of the firmware log", func(t *T, id []byte) {
		log := t.log(spec.LogFirmware, spec.BroadcastNSID, 0, 512)
		slot := int(log[0] & 7)
		if slot < 1 {
			t.fatalf("active slot %d", slot)
		}
		equal(t, "revision", string(log[8*slot:8*slot+8]), string(id[64:72]))
	})
	add("is the same each time", func(t *T, id []byte) {
		equal(t, "the same", bytes.Equal(t.identify(1, 0), id), true)
	})
	add("CNTLID is not FFF0h or above", func(t *T, id []byte) {
		if t.u16(id, 78) >= 0xfff0 {
			t.errorf("CNTLID is %#x", t.u16(id, 78))
		}
	})
	add("VER is the register VS", func(t *T, id []byte) { equal(t, "VER", t.u32(id, 80), t.read32(spec.RegVS)) })
	add("CNTRLTYPE is an I/O controller", func(t *T, id []byte) { equal(t, "CNTRLTYPE", id[111], 1) })
	add("FRMW has at least one slot", func(t *T, id []byte) {
		if id[260]>>1&7 == 0 {
			t.errorf("FRMW is %#x", id[260])
		}
	})
	add("WCTEMP is not 0", func(t *T, id []byte) { equal(t, "no WCTEMP", t.u16(id, 266) == 0, false) })
	add("CCTEMP is not 0", func(t *T, id []byte) { equal(t, "no CCTEMP", t.u16(id, 268) == 0, false) })
	add("WCTEMP is not above CCTEMP", func(t *T, id []byte) {
		if t.u16(id, 266) > t.u16(id, 268) {
			t.errorf("WCTEMP %d, CCTEMP %d", t.u16(id, 266), t.u16(id, 268))
		}
	})
	add("UNVMCAP is not above TNVMCAP", func(t *T, id []byte) {
		if t.u64(id, 296) > t.u64(id, 280) || t.u64(id, 304) > t.u64(id, 288) {
			t.errorf("UNVMCAP %d, TNVMCAP %d", t.u64(id, 296), t.u64(id, 280))
		}
	})
	add("TNVMCAP is there with Namespace Management", func(t *T, id []byte) {
		t.need(t.oacs(3), "Namespace Management")
		equal(t, "no TNVMCAP", t.u64(id, 280) == 0 && t.u64(id, 288) == 0, false)
	})
	add("SQES has entries of 64 bytes as the least size", func(t *T, id []byte) { equal(t, "minimum", id[512]&0xf, 6) })
	add("SQES has no maximum below the minimum", func(t *T, id []byte) { equal(t, "below", id[512]>>4 < id[512]&0xf, false) })
	add("CQES has entries of 16 bytes as the least size", func(t *T, id []byte) { equal(t, "minimum", id[513]&0xf, 4) })
	add("CQES has no maximum below the minimum", func(t *T, id []byte) { equal(t, "below", id[513]>>4 < id[513]&0xf, false) })
	add("NN is not 0 and not below an active namespace", func(t *T, id []byte) {
		for _, ns := range t.namespaces {
			if ns.id > t.u32(id, 516) {
				t.errorf("NN is %d, namespace %d is active", t.u32(id, 516), ns.id)
			}
		}
	})
	add("MNAN is not above NN", func(t *T, id []byte) {
		if t.u32(id, 540) > t.u32(id, 516) {
			t.errorf("MNAN %d, NN %d", t.u32(id, 540), t.u32(id, 516))
		}
	})
	add("VWC says what Flush with NSID FFFFFFFFh does", func(t *T, id []byte) {
		t.need(t.version() >= spec.Version1_4, "version 1.4")
		if b := id[525] >> 1 & 3; b < 2 {
			t.errorf("VWC bits 2:1 are %d", b)
		}
	})
	add("SUBNQN is an NVMe qualified name, NUL padded", func(t *T, id []byte) {
		name, rest, _ := strings.Cut(string(id[768:1024]), "\x00")
		if !strings.HasPrefix(name, "nqn.") || len(name) > 223 || strings.Trim(rest, "\x00") != "" {
			t.errorf("SUBNQN is %q", name)
		}
	})
	add("AWUPF is not above AWUN", func(t *T, id []byte) {
		if t.u16(id, 528) > t.u16(id, 526) {
			t.errorf("AWUN %d, AWUPF %d", t.u16(id, 526), t.u16(id, 528))
		}
	})
	add("NPSS is at most 31", func(t *T, id []byte) { equal(t, "above", id[263] > 31, false) })
	add("power state 0 says what it takes", func(t *T, id []byte) { equal(t, "no MP", t.u16(id, 2048) == 0, false) })
	add("power states beyond NPSS are 0", func(t *T, id []byte) {
		t.zero("power states", id, 2048+32*(int(id[263])+1), 3072)
	})
	add("the fields for fabrics are 0", func(t *T, id []byte) { t.zero("fabrics", id, 1792, 2048) })
	add("ANATT and the other ANA fields are 0 without ANA", func(t *T, id []byte) {
		t.need(id[76]&8 == 0, "controller without ANA")
		t.zero("ANA", id, 342, 352)
	})
	add("KAS is there with Keep Alive", func(t *T, id []byte) {
		c := t.do(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminKeepAlive})
		equal(t, "Keep Alive is supported", c.Status.OK(), t.u16(id, 320) != 0)
	})
	add("SANICAP announces the sanitize operations, or none", func(t *T, id []byte) {
		if v := t.u32(id, 328); v&^0xe0000007 != 0 {
			t.errorf("SANICAP is %#x", v)
		}
	})
	add("EDSTT is there with Device Self-test", func(t *T, id []byte) {
		equal(t, "EDSTT", t.u16(id, 316) != 0, t.oacs(4))
	})
	add("MTFA is 0 without Firmware Commit", func(t *T, id []byte) {
		t.need(!t.oacs(2), "controller without firmware commands")
		equal(t, "MTFA", t.u16(id, 270), 0)
	})
	add("PELS is there with the persistent event log", func(t *T, id []byte) {
		equal(t, "PELS", t.u32(id, 352) != 0, t.lpa(4))
	})
	return append(checks, reservedChecks()...)
}

// reservedChecks are those of what is reserved in Identify Controller.
func reservedChecks() (checks []Check) {
	for _, r := range [][2]int{{105, 110}, {134, 240}, {240, 253}, {358, 368}, {384, 512}, {564, 768}, {1024, 1792}} {
		checks = append(checks, Check{identifyController, "Identify Controller, reserved bytes " + span(r[0], r[1]-1) + " are 0", func(t *T) {
			t.zero("Identify Controller", t.identity, r[0], r[1])
		}, false})
	}
	for _, f := range []struct {
		name      string
		off, size int
		known     uint64 // bits that have a meaning
	}{
		{"CMIC", 76, 1, 0x0f}, {"OAES", 92, 4, 0x080ffb00 | 1<<31}, {"CTRATT", 96, 4, 0x000fffff}, {"OACS", 256, 2, 0x0fff},
		{"FRMW", 260, 1, 0x3f}, {"LPA", 261, 1, 0x7f}, {"AVSCC", 264, 1, 1}, {"APSTA", 265, 1, 1}, {"ONCS", 520, 2, 0x0fff},
		{"FUSES", 522, 2, 1}, {"FNA", 524, 1, 0x0f}, {"VWC", 525, 1, 7}, {"ICSVSCC", 530, 1, 1}, {"NWPC", 531, 1, 7},
		{"OCFS", 534, 2, 0x1f}, {"SGLS", 536, 4, 0x003fff07}, {"RPMBS", 312, 4, 0xffff003f}, {"HCTMA", 322, 2, 1}, {"DSTO", 318, 1, 1},
	} {
		checks = append(checks, Check{identifyController, "Identify Controller, " + f.name + " has no reserved bit", func(t *T) {
			var v uint64
			for i := range f.size {
				v |= uint64(t.identity[f.off+i]) << (8 * i)
			}
			equal(t, "reserved bits", v&^f.known, 0)
		}, false})
	}
	return checks
}

// text checks a text field.
func (t *T) text(name string, b []byte) {
	s := string(b)
	if strings.Trim(s, " ") == "" || strings.HasPrefix(s, " ") {
		t.errorf("%s is %q", name, s)
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			t.errorf("%s is %q", name, s)
			return
		}
	}
}
