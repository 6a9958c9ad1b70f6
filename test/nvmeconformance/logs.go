package nvmeconformance

import (
	"bytes"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

const getLogPage = "Base 2.0, 5.16"

// logPage is a log page as far as all are alike.
type logPage struct {
	section, name string
	id            uint8
	has           func(t *T) bool // nil: mandatory
	size          int             // that is always there
	fixed         bool            // there is nothing behind size
	unit          int             // of offsets and lengths, bytes
}

func logPages() []logPage {
	v2 := func(t *T) bool { return t.version() >= spec.Version2_0 }
	return []logPage{
		{"Base 2.0, 5.16.1.1", "Supported Log Pages (00h)", 0x00, v2, 1024, true, 4},
		{"Base 2.0, 5.16.1.2", "Error Information (01h)", 0x01, nil, 64, false, 4},
		{"Base 2.0, 5.16.1.3", "SMART / Health Information (02h)", 0x02, nil, 512, true, 4},
		{"Base 2.0, 5.16.1.4", "Firmware Slot Information (03h)", 0x03, nil, 512, true, 4},
		{"Base 2.0, 5.16.1.5", "Changed Namespace List (04h)", 0x04, func(t *T) bool { return t.oaes(8) }, 4096, true, 4},
		{"Base 2.0, 5.16.1.6", "Commands Supported and Effects (05h)", 0x05, func(t *T) bool { return t.lpa(1) }, 4096, true, 4},
		{"Base 2.0, 5.16.1.7", "Device Self-test (06h)", 0x06, func(t *T) bool { return t.oacs(4) }, 564, true, 4},
		{"Base 2.0, 5.16.1.8", "Telemetry Host-Initiated (07h)", 0x07, func(t *T) bool { return t.lpa(3) }, 512, false, 512},
		{"Base 2.0, 5.16.1.9", "Telemetry Controller-Initiated (08h)", 0x08, func(t *T) bool { return t.lpa(3) }, 512, false, 512},
		{"Base 2.0, 5.16.1.13", "Asymmetric Namespace Access (0Ch)", 0x0c, func(t *T) bool { return t.identity[76]&8 != 0 }, 16, false, 4},
		{"Base 2.0, 5.16.1.19", "Feature Identifiers Supported and Effects (12h)", 0x12, func(t *T) bool { return t.lpa(5) }, 1024, true, 4},
		{"Base 2.0, 5.16.1.20", "NVMe-MI Commands Supported and Effects (13h)", 0x13, func(t *T) bool { return t.lpa(5) && t.log(0x00, spec.BroadcastNSID, 0, 1024)[4*0x13]&1 != 0 }, 4096, true, 4},
		{"Base 2.0, 5.16.1.25", "Reservation Notification (80h)", 0x80, func(t *T) bool { return t.oncs(5) }, 64, true, 4},
		{"Base 2.0, 5.16.1.26", "Sanitize Status (81h)", 0x81, func(t *T) bool { return t.u32(t.identity, 328)&7 != 0 }, 512, false, 4},
	}
}

// logChecks are those that all log pages have in common.
func logChecks() (checks []Check) {
	for _, p := range logPages() {
		present := func(t *T) bool { return p.has == nil || p.has(t) }
		add := func(section, rule string, run func(t *T)) {
			checks = append(checks, Check{section, p.name + " " + rule, func(t *T) {
				t.need(present(t), p.name)
				run(t)
			}, false})
		}
		checks = append(checks, Check{p.section, p.name + " can be read if it is announced", func(t *T) {
			c := t.readLog(p.id, 0, p.size)
			switch {
			case present(t):
				t.status("Get Log Page", c, spec.Success)
			case p.id != 0x00 && p.id != 0x13:
				t.status("Get Log Page", c, never(spec.InvalidLogPage))
			}
		}, false})
		add(getLogPage, "can be read in the least pieces that it has", func(t *T) {
			t.must("Get Log Page", t.readLog(p.id, 0, p.unit))
		})
		offsets := func(rule string, run func(t *T)) {
			add(getLogPage, rule, func(t *T) {
				t.need(t.lpa(2), "log page offset (LPA bit 2)")
				run(t)
			})
		}
		offsets("at an offset is the same as a part of the whole", func(t *T) {
			whole := t.log(p.id, spec.BroadcastNSID, 0, p.size)
			t.need(p.unit < p.size, "log page of several pieces")
			for _, off := range []int{4, 32, p.size / 2 &^ 3, p.size - 4} {
				part := t.log(p.id, spec.BroadcastNSID, uint64(off), p.size-off)
				if !bytes.Equal(part, whole[off:]) {
					t.errorf("it differs at offset %d", off)
				}
			}
		})
		offsets("at an offset that is no multiple of 4: Invalid Field in Command", func(t *T) {
			for _, off := range []uint64{1, 2, 3} {
				t.status(fmt.Sprintf("offset %d", off), t.readLog(p.id, off, 4), never(spec.InvalidField))
			}
		})
		offsets("at an offset far beyond its end: Invalid Field in Command", func(t *T) {
			for _, off := range []uint64{1 << 31, 1 << 40, 1<<64 - 4} {
				t.status(fmt.Sprintf("offset %#x", off), t.readLog(p.id, off, 4), never(spec.InvalidField))
			}
		})
		if p.fixed {
			offsets("at an offset behind its end: Invalid Field in Command", func(t *T) {
				t.status("Get Log Page", t.readLog(p.id, uint64(p.size)+4, 4), never(spec.InvalidField))
			})
			add(getLogPage, "with more asked for than it has: its bytes come first", func(t *T) {
				whole := t.log(p.id, spec.BroadcastNSID, 0, p.size)
				more := t.log(p.id, spec.BroadcastNSID, 0, p.size+512)
				equal(t, "the same", bytes.Equal(more[:p.size], whole), true)
			})
		}
		add(getLogPage, "writes no more than was asked for", func(t *T) {
			n := max(16, p.unit)
			cmd := logCommand(p.id, spec.BroadcastNSID, 0, n)
			data := t.with(cmd, n+48)
			for i := range data {
				data[i] = 0xee
			}
			t.must("Get Log Page", t.do(t.admin, cmd))
			equal(t, "what is behind", bytes.Count(data[n:], []byte{0xee}), 48)
		})
		add(getLogPage, "is the same when it is read again with RAE", func(t *T) {
			cmd := logCommand(p.id, spec.BroadcastNSID, 0, p.size)
			cmd.CDW10 |= 1 << 15
			data := t.with(cmd, p.size)
			t.must("Get Log Page", t.do(t.admin, cmd))
			first := bytes.Clone(data)
			t.must("Get Log Page", t.do(t.admin, cmd))
			equal(t, "the same", bytes.Equal(first, data), true)
		})
	}
	for _, id := range []uint8{0x0b, 0x1f, 0x7f, 0x82, 0xbf, 0xc0, 0xff} {
		checks = append(checks, Check{getLogPage, fmt.Sprintf("the unknown log page %02Xh: %s", id, describe(spec.InvalidLogPage)), func(t *T) {
			t.status("Get Log Page", t.readLog(id, 0, 64), never(spec.InvalidLogPage))
		}, false})
	}
	add := func(rule string, run func(t *T)) { checks = append(checks, Check{getLogPage, rule, run, false}) }
	add("NUMDU is the upper half of the number of dwords", func(t *T) {
		cmd := logCommand(spec.LogSmart, spec.BroadcastNSID, 0, 512)
		cmd.CDW11 |= 0xffff // 16 GiB: more than any transfer
		t.with(cmd, 4096)
		t.need(t.identity[77] != 0, "limit of transfers (MDTS)")
		t.expect("Get Log Page of 16 GiB", cmd, never(spec.InvalidField))
	})
	add("more than MDTS: Invalid Field in Command", func(t *T) {
		t.need(t.identity[77] != 0, "limit of transfers (MDTS)")
		cmd := logCommand(spec.LogErrors, spec.BroadcastNSID, 0, t.maxTransfer()+4)
		t.with(cmd, 4096)
		t.expect("Get Log Page", cmd, never(spec.InvalidField))
	})
	add("SMART of a namespace is refused if LPA bit 0 is 0: Invalid Field in Command", func(t *T) {
		t.need(!t.lpa(0), "controller without SMART for each namespace")
		cmd := logCommand(spec.LogSmart, t.namespaces[0].id, 0, 512)
		t.with(cmd, 512)
		t.expect("Get Log Page", cmd, never(spec.InvalidField))
	})
	add("SMART of NSID 0 is that of the controller", func(t *T) {
		equal(t, "the same", bytes.Equal(t.log(spec.LogSmart, 0, 0, 32), t.log(spec.LogSmart, spec.BroadcastNSID, 0, 32)), true)
	})
	add("with PRP2 not at the beginning of a page: "+describe(spec.InvalidPRPOffset), func(t *T) {
		cmd := logCommand(spec.LogSmart, spec.BroadcastNSID, 0, 512)
		_, at := t.alloc(2 * pageSize)
		cmd.PRP1, cmd.PRP2 = at+0xf00, at+pageSize+8
		t.expect("Get Log Page", cmd, never(spec.InvalidPRPOffset))
	})
	add("to an address that is not mapped: "+describe(spec.DataTransferError), func(t *T) {
		cmd := logCommand(spec.LogSmart, spec.BroadcastNSID, 0, 512)
		cmd.PRP1 = nowhere
		t.expectMemoryError(t.do(t.admin, cmd))
	})
	return checks
}

// readLog is Get Log Page with room for n bytes.
func (t *T) readLog(id uint8, off uint64, n int) completion {
	cmd := logCommand(id, spec.BroadcastNSID, off, n)
	t.with(cmd, n)
	return t.do(t.admin, cmd)
}

// logContentChecks are those of what single log pages hold.
func logContentChecks() (checks []Check) {
	add := func(id uint8, rule string, run func(t *T, log []byte)) {
		for _, p := range logPages() {
			if p.id == id {
				checks = append(checks, Check{p.section, p.name + ": " + rule, func(t *T) {
					t.need(p.has == nil || p.has(t), p.name)
					run(t, t.log(id, spec.BroadcastNSID, 0, p.size))
				}, false})
			}
		}
	}
	for _, p := range logPages() {
		if p.id != 0 {
			add(0x00, p.name+" is listed if and only if it can be read", func(t *T, log []byte) {
				equal(t, "LSUPP", log[4*int(p.id)]&1 == 1, t.readLog(p.id, 0, p.size).Status.OK())
			})
		}
	}
	add(0x00, "what is not listed is refused", func(t *T, log []byte) {
		for id := range 256 {
			if log[4*id]&1 == 0 {
				t.status(fmt.Sprintf("log page %02Xh", id), t.readLog(uint8(id), 0, 4), never(spec.InvalidLogPage))
			}
		}
	})
	add(0x03, "the active slot holds a revision", func(t *T, log []byte) {
		slot := int(log[0] & 7)
		if slot == 0 || slot > int(t.identity[260]>>1&7) {
			t.fatalf("active slot %d, FRMW %#x", slot, t.identity[260])
		}
		t.text("revision", log[8*slot:8*slot+8])
	})
	add(0x03, "slots beyond those that there are hold none", func(t *T, log []byte) {
		t.zero("log", log, 8*(int(t.identity[260]>>1&7)+1), 64)
	})
	add(0x03, "reserved bits and bytes are 0", func(t *T, log []byte) {
		equal(t, "AFI bits 7 and 3", log[0]&0x88, 0)
		t.zero("log", log, 1, 8)
		t.zero("log", log, 64, 512)
	})
	add(0x04, "nothing has changed at first", func(t *T, log []byte) { t.zero("log", t.log(0x04, 0xffffffff, 0, 4096), 0, 4096) })
	add(0x06, "nothing runs, and entries that were never used say Fh", func(t *T, log []byte) {
		equal(t, "current operation", log[0]&0xf, 0)
		for i := range 20 {
			if e := log[4+28*i:]; e[0]&0xf != 0xf && e[0]>>4 == 0 {
				t.errorf("entry %d is %#x", i, e[0])
			}
		}
	})
	add(0x07, "it says that it is 07h", func(t *T, log []byte) { equal(t, "identifier", log[0], 7) })
	add(0x08, "it says that it is 08h", func(t *T, log []byte) { equal(t, "identifier", log[0], 8) })
	add(0x07, "the last blocks of the three areas ascend", func(t *T, log []byte) {
		if t.u16(log, 8) > t.u16(log, 10) || t.u16(log, 10) > t.u16(log, 12) {
			t.errorf("areas end at %d, %d, %d", t.u16(log, 8), t.u16(log, 10), t.u16(log, 12))
		}
	})
	add(0x08, "the last blocks of the three areas ascend", func(t *T, log []byte) {
		if t.u16(log, 8) > t.u16(log, 10) || t.u16(log, 10) > t.u16(log, 12) {
			t.errorf("areas end at %d, %d, %d", t.u16(log, 8), t.u16(log, 10), t.u16(log, 12))
		}
	})
	for _, f := range features() {
		if f.id == spec.FeatTimestamp || f.id == featureHostBehavior || f.data == 0 {
			add(0x12, f.name+" is listed if and only if it can be read", func(t *T, log []byte) {
				t.need(!f.namespace || len(t.namespaces) > 0, "namespace")
				equal(t, "FSUPP", log[4*int(f.id)]&1 == 1, f.get(t, 0).Status.OK())
			})
		}
	}
	add(0x12, "what is not listed is refused", func(t *T, log []byte) {
		for id := range 256 {
			if log[4*id]&1 == 0 {
				cmd := getFeature(uint8(id), 0, 0)
				t.with(cmd, 4096)
				t.status(fmt.Sprintf("feature %02Xh", id), t.do(t.admin, cmd), never(spec.InvalidField))
			}
		}
	})
	add(0x80, "it is empty at first", func(t *T, log []byte) {
		equal(t, "log page type", log[8], 0)
		equal(t, "available log pages", log[9], 0)
	})
	return checks
}
