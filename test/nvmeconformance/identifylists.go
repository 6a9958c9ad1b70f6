package nvmeconformance

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// ids reads a list of identifiers of 4 bytes.
func ids(b []byte) (list []uint32) {
	for ; len(b) > 0; b = b[4:] {
		list = append(list, binary.LittleEndian.Uint32(b))
	}
	return list
}

// identifyListChecks are those of all other values of CNS, and of Identify as a command.
func identifyListChecks() (checks []Check) {
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, "Identify " + rule, run, false})
	}
	refuse := func(section, rule string, cns uint8, nsid func(t *T) uint32, want spec.Status) {
		add(section, rule+": "+describe(want), func(t *T) {
			cmd := identifyCommand(cns, nsid(t))
			t.with(cmd, 4096)
			t.expect("the command", cmd, never(want))
		})
	}
	fixed := func(id uint32) func(*T) uint32 { return func(*T) uint32 { return id } }
	const badNamespace = spec.InvalidNamespaceOrFormat
	for _, c := range []struct {
		section, name string
		cns           uint8
	}{
		{identifyNamespace, "Namespace (CNS 00h)", 0}, {"Base 2.0, 5.17.2.3", "Namespace Identification Descriptors (CNS 03h)", 3},
		{"Base 2.0, 5.17.2.5", "I/O Command Set specific Namespace (CNS 05h)", 5},
		{"Base 2.0, 5.17.2.8", "I/O Command Set Independent Namespace (CNS 08h)", 8},
	} {
		refuse(c.section, c.name+" of NSID 0", c.cns, fixed(0), badNamespace)
		refuse(c.section, c.name+" of an NSID above NN", c.cns, (*T).inactive, badNamespace)
		refuse(c.section, c.name+" of NSID FFFFFFFEh", c.cns, fixed(0xfffffffe), badNamespace)
		add(c.section, c.name+" of every active namespace", func(t *T) {
			for _, ns := range t.namespaces {
				t.identify(c.cns, ns.id)
			}
		})
	}
	const list = "Base 2.0, 5.17.2.2"
	for _, c := range []struct {
		section, name string
		cns           uint8
	}{{list, "active namespaces (CNS 02h)", 2}, {"Base 2.0, 5.17.2.7", "active namespaces of a command set (CNS 07h)", 7}, {"Base 2.0, 5.17.2.9", "allocated namespaces (CNS 10h)", 0x10}} {
		listed := func(rule string, run func(t *T, from func(uint32) []uint32)) {
			add(c.section, c.name+" "+rule, func(t *T) {
				t.needCNS(c.cns)
				run(t, func(after uint32) []uint32 { return ids(t.identify(c.cns, after)) })
			})
		}
		listed("ascend and are followed by zeroes", func(t *T, from func(uint32) []uint32) {
			ended := false
			last := uint32(0)
			for _, id := range from(0) {
				switch {
				case id == 0:
					ended = true
				case ended || id <= last || id > t.u32(t.identity, 516):
					t.fatalf("%d behind %d", id, last)
				}
				last = max(last, id)
			}
		})
		listed("hold every active namespace", func(t *T, from func(uint32) []uint32) {
			have := map[uint32]bool{}
			for _, id := range from(0) {
				have[id] = true
			}
			for _, ns := range t.namespaces {
				equal(t, fmt.Sprintf("namespace %d", ns.id), have[ns.id], true)
			}
		})
		listed("begin behind NSID", func(t *T, from func(uint32) []uint32) {
			all := from(0)
			for i := 0; i < len(all) && all[i] != 0 && i < 16; i++ {
				equal(t, "first behind", from(all[i])[0], all[i+1])
			}
		})
		listed("behind the last one are none", func(t *T, from func(uint32) []uint32) {
			equal(t, "first behind FFFFFFFDh", from(0xfffffffd)[0], 0)
		})
		for _, id := range []uint32{0xfffffffe, 0xffffffff} {
			add(c.section, fmt.Sprintf("%s behind %Xh: %s", c.name, id, describe(badNamespace)), func(t *T) {
				t.needCNS(c.cns)
				cmd := identifyCommand(c.cns, id)
				t.with(cmd, 4096)
				t.expect("the command", cmd, never(badNamespace))
			})
		}
	}
	const descriptors = "Base 2.0, 5.17.2.3"
	each := func(section, rule string, run func(t *T, ns *namespace)) {
		add(section, rule, func(t *T) {
			for i := range t.namespaces {
				run(t, &t.namespaces[i])
			}
		})
	}
	each(descriptors, "CNS 03h: the EUI64 is that of CNS 00h", func(t *T, ns *namespace) {
		if d := t.descriptors(ns.id)[1]; d != nil {
			equal(t, "EUI64", string(d), string(ns.data[120:128]))
		} else {
			t.zero("EUI64 without a descriptor", ns.data, 120, 128)
		}
	})
	each(descriptors, "CNS 03h: the NGUID is that of CNS 00h", func(t *T, ns *namespace) {
		if d := t.descriptors(ns.id)[2]; d != nil {
			equal(t, "NGUID", string(d), string(ns.data[104:120]))
		} else {
			t.zero("NGUID without a descriptor", ns.data, 104, 120)
		}
	})
	each(descriptors, "CNS 03h: descriptors have the length of their type", func(t *T, ns *namespace) {
		for kind, d := range t.descriptors(ns.id) {
			equal(t, fmt.Sprintf("length of type %d", kind), len(d), map[uint8]int{1: 8, 2: 16, 3: 16, 4: 1}[kind])
		}
	})
	each(descriptors, "CNS 03h: the UUID has the variant of RFC 9562 and is no other namespace's", func(t *T, ns *namespace) {
		d := t.descriptors(ns.id)[3]
		if d == nil {
			return
		}
		equal(t, "variant", d[8]>>6, 2)
		for _, other := range t.namespaces {
			if other.id != ns.id && bytes.Equal(t.descriptors(other.id)[3], d) {
				t.errorf("that of namespace %d too", other.id)
			}
		}
	})
	each(descriptors, "CNS 03h: the command set is the one for NVM", func(t *T, ns *namespace) {
		if d := t.descriptors(ns.id)[4]; d != nil {
			equal(t, "CSI", d[0], 0)
		}
	})
	each("Base 2.0, 5.17.2.8", "CNS 08h: NMIC, RESCAP and FPI are those of CNS 00h", func(t *T, ns *namespace) {
		d := t.identify(8, ns.id)
		equal(t, "NMIC", d[1], ns.data[30])
		equal(t, "RESCAP", d[2], ns.data[31])
		equal(t, "FPI", d[3], ns.data[32])
	})
	each("Base 2.0, 5.17.2.8", "CNS 08h: the namespace is ready (NSTAT.NRDY)", func(t *T, ns *namespace) {
		equal(t, "NRDY", t.identify(8, ns.id)[14]&1, 1)
	})
	each("Base 2.0, 5.17.2.8", "CNS 08h: reserved bytes are 0", func(t *T, ns *namespace) { t.zero("data", t.identify(8, ns.id), 24, 4096) })
	each("Base 2.0, 5.17.2.10", "allocated namespace (CNS 11h) is what CNS 00h says", func(t *T, ns *namespace) {
		t.needCNS(0x11)
		d := t.identify(0x11, ns.id)
		copy(d[16:24], ns.data[16:24])
		equal(t, "the same", bytes.Equal(d, ns.data), true)
	})
	add("Base 2.0, 5.17.2.10", "allocated namespace (CNS 11h) of NSID FFFFFFFFh: "+describe(badNamespace), func(t *T) {
		t.needCNS(0x11)
		cmd := identifyCommand(0x11, 0xffffffff)
		t.with(cmd, 4096)
		t.expect("the command", cmd, never(badNamespace))
	})
	for _, c := range []struct {
		section, name string
		cns           uint8
	}{{"Base 2.0, 5.17.2.11", "controllers attached to a namespace (CNS 12h)", 0x12}, {"Base 2.0, 5.17.2.12", "controllers of the subsystem (CNS 13h)", 0x13}} {
		add(c.section, c.name+" ascend and hold this one", func(t *T) {
			t.needCNS(c.cns)
			list := t.controllers(c.cns, t.namespaces[0].id, 0)
			own, found := t.u16(t.identity, 78), false
			for i, id := range list {
				found = found || id == own
				if i > 0 && id <= list[i-1] {
					t.errorf("%d behind %d", id, list[i-1])
				}
			}
			equal(t, "this controller", found, true)
		})
		add(c.section, c.name+" begin with CNTID", func(t *T) {
			t.needCNS(c.cns)
			own := t.u16(t.identity, 78)
			list := t.controllers(c.cns, t.namespaces[0].id, own)
			if len(list) == 0 || list[0] != own {
				t.errorf("from %d on: %v", own, list)
			}
			for _, id := range t.controllers(c.cns, t.namespaces[0].id, own+1) {
				if id <= own {
					t.errorf("%d is below CNTID %d", id, own+1)
				}
			}
		})
	}
	const sets = "Base 2.0, 5.17.2.21"
	add(sets, "I/O command sets (CNS 1Ch) has the one for NVM in an enabled vector", func(t *T) {
		t.need(t.cap&spec.CapCSSAll != 0, "CAP.CSS with all command sets")
		cmd := identifyCommand(0x1c, 0)
		cmd.CDW10 |= uint32(t.u16(t.identity, 78)) << 16
		d := t.with(cmd, 4096)
		t.must("the command", t.do(t.admin, cmd))
		equal(t, "vector 0 with NVM", d[0]&1, 1)
		t.zero("vectors behind it", d, 4080, 4096)
	})
	for _, cns := range []uint8{5, 6} {
		add("Base 2.0, 5.17.2.5", fmt.Sprintf("CNS %02Xh of a command set that does not exist: %s", cns, describe(spec.InvalidField)), func(t *T) {
			cmd := identifyCommand(cns, t.namespaces[0].id)
			cmd.CDW11 = 0x2f << 24
			t.with(cmd, 4096)
			t.expect("the command", cmd, never(spec.InvalidField))
		})
	}
	return append(checks, identifyCommandChecks()...)
}

// needCNS skips where an optional value of CNS is not supported.
func (t *T) needCNS(cns uint8) {
	switch cns {
	case 0x10, 0x11, 0x12, 0x13:
		t.need(t.oacs(3), "Namespace Management")
	case 7:
		t.need(t.cap&spec.CapCSSAll != 0, "CAP.CSS with all command sets")
	}
}

// controllers reads a controller list.
func (t *T) controllers(cns uint8, nsid uint32, from uint16) (list []uint16) {
	cmd := identifyCommand(cns, nsid)
	cmd.CDW10 |= uint32(from) << 16
	d := t.with(cmd, 4096)
	t.must("Identify", t.do(t.admin, cmd))
	n := int(t.u16(d, 0))
	if n > 2047 {
		t.fatalf("a list of %d controllers", n)
	}
	for i := range n {
		list = append(list, t.u16(d, 2+2*i))
	}
	t.zero("what is behind the list", d, 2+2*n, 4096)
	return list
}

// identifyCommandChecks are those of Identify as a command.
func identifyCommandChecks() (checks []Check) {
	const section = "Base 2.0, 5.17"
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{section, "Identify " + rule, run, false})
	}
	for _, cns := range []uint8{0x0b, 0x0f, 0x1e, 0x30, 0x7f, 0xc0, 0xff} {
		add(fmt.Sprintf("with the reserved or unknown CNS %02Xh: %s", cns, describe(spec.InvalidField)), func(t *T) {
			cmd := identifyCommand(cns, 0)
			t.with(cmd, 4096)
			t.expect("the command", cmd, never(spec.InvalidField))
		})
	}
	add("writes exactly 4,096 bytes", func(t *T) {
		data, at := t.alloc(3 * pageSize)
		for i := range data {
			data[i] = 0xee
		}
		cmd := identifyCommand(1, 0)
		cmd.PRP1 = at + pageSize
		t.must("the command", t.do(t.admin, cmd))
		equal(t, "what is before", bytes.Count(data[:pageSize], []byte{0xee}), pageSize)
		equal(t, "what is behind", bytes.Count(data[2*pageSize:], []byte{0xee}), pageSize)
		equal(t, "the data", bytes.Equal(data[pageSize:2*pageSize], t.identity), true)
	})
	for _, off := range []uint64{4, 0x200, 0xffc} {
		add(fmt.Sprintf("with PRP1 at offset %Xh of a page uses PRP2", off), func(t *T) {
			data, at := t.alloc(2 * pageSize)
			cmd := identifyCommand(1, 0)
			cmd.PRP1, cmd.PRP2 = at+off, at+pageSize
			t.must("the command", t.do(t.admin, cmd))
			equal(t, "the data", bytes.Equal(data[off:off+4096], t.identity), true)
		})
	}
	add("with PRP2 not at the beginning of a page: "+describe(spec.InvalidPRPOffset), func(t *T) {
		_, at := t.alloc(3 * pageSize)
		cmd := identifyCommand(1, 0)
		cmd.PRP1, cmd.PRP2 = at+0x800, at+pageSize+0x10
		t.expect("the command", cmd, never(spec.InvalidPRPOffset))
	})
	add("to an address that is not mapped: "+describe(spec.DataTransferError), func(t *T) {
		cmd := identifyCommand(1, 0)
		cmd.PRP1 = nowhere
		t.expectMemoryError(t.do(t.admin, cmd))
	})
	for _, psdt := range []uint8{1, 2, 3} {
		add(fmt.Sprintf("with PSDT %d, SGLs not being for admin commands on PCIe: %s", psdt, describe(spec.InvalidField)), func(t *T) {
			cmd := identifyCommand(1, 0)
			t.with(cmd, 4096)
			cmd.Flags = psdt << 6
			t.expect("the command", cmd, never(spec.InvalidField))
		})
	}
	for _, fuse := range []uint8{1, 2, 3} {
		add(fmt.Sprintf("with FUSE %d: %s", fuse, describe(spec.InvalidField)), func(t *T) {
			cmd := identifyCommand(1, 0)
			t.with(cmd, 4096)
			cmd.Flags = fuse
			t.expect("the command", cmd, never(spec.InvalidField))
		})
	}
	return checks
}

// expectMemoryError checks the status of a command whose data cannot be reached.
func (t *T) expectMemoryError(c completion) {
	if c.Status.Code() != spec.DataTransferError {
		t.errorf("the command completes with %s, must be %s", describe(c.Status), describe(spec.DataTransferError))
	}
}
