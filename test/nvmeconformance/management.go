package nvmeconformance

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// Command specific statuses of this file (Base 2.0, figure 99).
const (
	invalidFormat         spec.Status = spec.SCTCommand<<8 | 0x0a
	insufficientCapacity  spec.Status = spec.SCTCommand<<8 | 0x15
	identifierUnavailable spec.Status = spec.SCTCommand<<8 | 0x16
	alreadyAttached       spec.Status = spec.SCTCommand<<8 | 0x18
	notAttached           spec.Status = spec.SCTCommand<<8 | 0x1a
	thinNotSupported      spec.Status = spec.SCTCommand<<8 | 0x1b
	controllerListInvalid spec.Status = spec.SCTCommand<<8 | 0x1c
	managedBlocks                     = 4096
)

// create is Namespace Management that creates; change may alter the data structure.
func (t *T) create(change func(d []byte)) completion {
	cmd := &spec.SubmissionEntry{Opcode: namespaceManagement}
	d := t.with(cmd, 4096)
	binary.LittleEndian.PutUint64(d, managedBlocks)
	binary.LittleEndian.PutUint64(d[8:], managedBlocks)
	if change != nil {
		change(d)
	}
	return t.do(t.admin, cmd)
}

// created creates a namespace, or skips where there is no room for one.
func (t *T) created() uint32 {
	c := t.create(nil)
	if code := c.Status.Code(); code == insufficientCapacity || code == identifierUnavailable {
		t.skipf("no room for a namespace: %s", describe(code))
	}
	return t.must("Namespace Management", c).DW0
}

func (t *T) deleted(id uint32) completion {
	return t.do(t.admin, &spec.SubmissionEntry{Opcode: namespaceManagement, NSID: id, CDW10: 1})
}

// attach is Namespace Attachment of the controllers of a list; sel 0 attaches, 1 detaches.
func (t *T) attach(id uint32, sel uint32, controllers ...uint16) completion {
	cmd := &spec.SubmissionEntry{Opcode: namespaceAttachment, NSID: id, CDW10: sel}
	d := t.with(cmd, 4096)
	binary.LittleEndian.PutUint16(d, uint16(len(controllers)))
	for i, c := range controllers {
		binary.LittleEndian.PutUint16(d[2+2*i:], c)
	}
	return t.do(t.admin, cmd)
}

func (t *T) own() uint16 { return t.u16(t.identity, 78) }

// listed says whether a list of namespaces has one.
func (t *T) listed(cns uint8, id uint32) bool { return ids(t.identify(cns, id-1))[0] == id }

// managementChecks are those of Namespace Management and Namespace Attachment.
func managementChecks() (checks []Check) {
	const management, attachment = "Base 2.0, 5.23", "Base 2.0, 5.22"
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.need(t.oacs(3), "Namespace Management")
			run(t)
		}, false})
	}
	// with runs a check with a namespace that was created, attached or not.
	with := func(section, rule string, attached bool, run func(t *T, id uint32)) {
		add(section, rule, func(t *T) {
			id := t.created()
			defer t.deleted(id)
			if attached {
				t.must("Namespace Attachment", t.attach(id, 0, t.own()))
			}
			run(t, id)
		})
	}
	refuse := func(rule string, want spec.Status, change func(t *T, d []byte)) {
		add(management, "a namespace "+rule+" is not created: "+describe(want), func(t *T) {
			c := t.create(func(d []byte) { change(t, d) })
			t.status("it", c, never(want))
			if c.Status.OK() {
				t.deleted(c.DW0)
			}
		})
	}
	with(management, "a namespace that is created is allocated, not active", false, func(t *T, id uint32) {
		equal(t, "allocated", t.listed(0x10, id), true)
		equal(t, "active", t.listed(2, id), false)
	})
	with(management, "the identifier of a namespace that is created is not above NN", false, func(t *T, id uint32) {
		if id == 0 || id > t.u32(t.identity, 516) {
			t.errorf("NSID %d, NN %d", id, t.u32(t.identity, 516))
		}
	})
	with(management, "a namespace that is created has the size that was asked for", false, func(t *T, id uint32) {
		d := t.identify(0x11, id)
		equal(t, "NSZE", t.u64(d, 0), managedBlocks)
		equal(t, "NCAP", t.u64(d, 8), managedBlocks)
	})
	with(identifyNamespace, "CNS 00h of an allocated namespace that is not attached reads 0", false, func(t *T, id uint32) {
		t.zero("data", t.identify(0, id), 0, 4096)
	})
	with("Base 2.0, 3.2.1", "a Read of an inactive namespace: "+describe(spec.InvalidField), false, func(t *T, id uint32) {
		cmd := &spec.SubmissionEntry{Opcode: spec.NVMRead, NSID: id}
		t.with(cmd, 4096)
		t.expectIO("Read", cmd, never(spec.InvalidField))
	})
	with("Base 2.0, 3.2.1", "a Flush of an inactive namespace: "+describe(spec.InvalidField), false, func(t *T, id uint32) {
		t.expectIO("Flush", &spec.SubmissionEntry{NSID: id}, never(spec.InvalidField))
	})
	with(attachment, "a refusal that may take its time is in the error log, and has the More bit", false, func(t *T, id uint32) {
		c := t.attach(id, 1, t.own())
		equal(t, "More", c.Status.More(), true)
		e := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64)
		equal(t, "CID", t.u16(e, 10), c.CID)
		equal(t, "status", spec.Status(t.u16(e, 12)>>1), c.Status)
	})
	with(attachment, "a namespace that is attached is active", true, func(t *T, id uint32) { equal(t, "active", t.listed(2, id), true) })
	with(attachment, "a namespace that is attached has the same data structure in CNS 00h and 11h", true, func(t *T, id uint32) {
		equal(t, "the same", bytes.Equal(t.identify(0, id), t.identify(0x11, id)), true)
	})
	with(attachment, "a namespace that is attached can be written and read", true, func(t *T, id uint32) {
		ns := t.namespace(id)
		want := make([]byte, 8*ns.blockSize)
		pattern(want, 3)
		w := &spec.SubmissionEntry{Opcode: spec.NVMWrite, NSID: id, CDW12: 7}
		copy(t.with(w, len(want)), want)
		t.expectIO("Write", w, spec.Success)
		r := &spec.SubmissionEntry{Opcode: spec.NVMRead, NSID: id, CDW12: 7}
		got := t.with(r, len(want))
		t.expectIO("Read", r, spec.Success)
		equal(t, "the right data", bytes.Equal(got, want), true)
	})
	with(attachment, "a namespace that was created reads as zeroes", true, func(t *T, id uint32) {
		r := &spec.SubmissionEntry{Opcode: spec.NVMRead, NSID: id, CDW12: 7}
		got := t.with(r, 8*t.namespace(id).blockSize)
		t.expectIO("Read", r, spec.Success)
		t.zero("data", got, 0, len(got))
	})
	with("Base 2.0, 5.17.2.11", "the controllers attached to a namespace (CNS 12h) hold this one once it is attached", false, func(t *T, id uint32) {
		equal(t, "controllers before", len(t.controllers(0x12, id, 0)), 0)
		t.must("Namespace Attachment", t.attach(id, 0, t.own()))
		list := t.controllers(0x12, id, 0)
		equal(t, "this one", len(list) == 1 && list[0] == t.own(), true)
	})
	with(attachment, "to attach what is attached: Namespace Already Attached", true, func(t *T, id uint32) {
		t.status("it", t.attach(id, 0, t.own()), never(alreadyAttached))
	})
	with(attachment, "to detach what is not attached: Namespace Not Attached", false, func(t *T, id uint32) {
		t.status("it", t.attach(id, 1, t.own()), never(notAttached))
	})
	with(attachment, "a namespace that is detached is inactive, and still allocated", true, func(t *T, id uint32) {
		t.must("detachment", t.attach(id, 1, t.own()))
		equal(t, "active", t.listed(2, id), false)
		equal(t, "allocated", t.listed(0x10, id), true)
	})
	with(attachment, "an empty controller list: Controller List Invalid", false, func(t *T, id uint32) {
		t.status("it", t.attach(id, 0), never(controllerListInvalid))
	})
	with(attachment, "a controller list with a controller that does not exist: Controller List Invalid", false, func(t *T, id uint32) {
		t.status("it", t.attach(id, 0, 0xffe0), never(controllerListInvalid))
		equal(t, "active", t.listed(2, id), false)
	})
	with(attachment, "a controller list of more than 2,047: Controller List Invalid", false, func(t *T, id uint32) {
		cmd := &spec.SubmissionEntry{Opcode: namespaceAttachment, NSID: id}
		binary.LittleEndian.PutUint16(t.with(cmd, 4096), 2048)
		t.expect("it", cmd, never(controllerListInvalid))
	})
	for _, sel := range []uint32{2, 0xf} {
		with(attachment, fmt.Sprintf("the reserved SEL %d: %s", sel, describe(spec.InvalidField)), false, func(t *T, id uint32) {
			t.status("it", t.attach(id, sel, t.own()), never(spec.InvalidField))
		})
		add(management, fmt.Sprintf("the reserved SEL %d: %s", sel, describe(spec.InvalidField)), func(t *T) {
			t.expect("it", &spec.SubmissionEntry{Opcode: namespaceManagement, CDW10: sel}, never(spec.InvalidField))
		})
	}
	for _, n := range []struct {
		what string
		id   func(*T) uint32
	}{{"NSID 0", func(*T) uint32 { return 0 }}, {"an NSID above NN", (*T).inactive}} {
		add(attachment, "to attach "+n.what+": "+describe(spec.InvalidNamespaceOrFormat), func(t *T) {
			t.status("it", t.attach(n.id(t), 0, t.own()), never(spec.InvalidNamespaceOrFormat))
		})
		add(management, "to delete "+n.what+": "+describe(spec.InvalidNamespaceOrFormat), func(t *T) {
			t.status("it", t.deleted(n.id(t)), never(spec.InvalidNamespaceOrFormat))
		})
	}
	add(management, "a namespace that is deleted is gone", func(t *T) {
		id := t.created()
		t.must("deletion", t.deleted(id))
		equal(t, "allocated", t.listed(0x10, id), false)
		equal(t, "a second deletion succeeds", t.deleted(id).Status.OK(), false)
	})
	add(management, "a namespace that is deleted while it is attached is inactive", func(t *T) {
		id := t.created()
		t.must("Namespace Attachment", t.attach(id, 0, t.own()))
		t.must("deletion", t.deleted(id))
		equal(t, "active", t.listed(2, id), false)
	})
	add(management, "UNVMCAP goes down with a namespace and comes back with its deletion", func(t *T) {
		before := t.u64(t.identify(1, 0), 296)
		id := t.created()
		if during := t.u64(t.identify(1, 0), 296); during >= before {
			t.errorf("UNVMCAP %d, before %d", during, before)
		}
		t.must("deletion", t.deleted(id))
		equal(t, "UNVMCAP", t.u64(t.identify(1, 0), 296), before)
	})
	refuse("larger than what there is", insufficientCapacity, func(_ *T, d []byte) {
		binary.LittleEndian.PutUint64(d, 1<<50)
		binary.LittleEndian.PutUint64(d[8:], 1<<50)
	})
	refuse("with NCAP above NSZE", spec.InvalidField, func(_ *T, d []byte) { binary.LittleEndian.PutUint64(d[8:], managedBlocks*2) })
	add(management, "what a namespace takes that is larger than what there is stands in the error log, in bytes", func(t *T) {
		const blocks = 1 << 50
		c := t.create(func(d []byte) {
			binary.LittleEndian.PutUint64(d, blocks)
			binary.LittleEndian.PutUint64(d[8:], blocks)
		})
		t.status("it", c, never(insufficientCapacity))
		e := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64)
		equal(t, "CID", t.u16(e, 10), c.CID)
		if n := t.u64(e, 32); n < blocks*512 {
			t.errorf("the command specific information is %d, must be %d or more", n, uint64(blocks*512))
		}
	})
	refuse("of a format that does not exist", invalidFormat, func(_ *T, d []byte) { d[26] = 0xf })
	refuse("with protection information in a format that has no metadata", invalidFormat, func(_ *T, d []byte) { d[29] = 1 })
	add(management, "a namespace with NCAP below NSZE: Thin Provisioning Not Supported", func(t *T) {
		t.need(len(t.namespaces) > 0 && t.namespaces[0].data[24]&1 == 0, "controller without thin provisioning")
		c := t.create(func(d []byte) { binary.LittleEndian.PutUint64(d[8:], managedBlocks/2) })
		t.status("it", c, never(thinNotSupported))
	})
	return checks
}

// formatChecks are those of Format NVM.
func formatChecks() (checks []Check) {
	const section = "Base 2.0, 5.14"
	add := func(rule string, run func(t *T, ns *namespace)) {
		checks = append(checks, Check{section, "Format NVM " + rule, func(t *T) {
			t.needNamespace()
			t.need(t.oacs(1), "Format NVM")
			run(t, t.ns)
		}, false})
	}
	format := func(t *T, nsid, cdw10 uint32) completion {
		return t.do(t.admin, &spec.SubmissionEntry{Opcode: formatNVM, NSID: nsid, CDW10: cdw10})
	}
	current := func(ns *namespace) uint32 { return uint32(ns.data[26]&0xf) | uint32(ns.data[26]>>5&3)<<12 }
	add("to the format that it has succeeds", func(t *T, ns *namespace) { t.status("it", format(t, ns.id, current(ns)), spec.Success) })
	for ses, name := range []string{1: "user data erase", 2: "cryptographic erase"} {
		if ses == 0 {
			continue
		}
		add("with "+name+" leaves no data", func(t *T, ns *namespace) {
			t.need(ses == 1 || t.identity[524]&4 != 0, name)
			old := t.write(0, 8, 0x6b)
			t.status("it", format(t, ns.id, current(ns)|uint32(ses)<<9), spec.Success)
			equal(t, "the old data", bytes.Equal(t.read(0, 8), old), false)
		})
	}
	for _, f := range []struct {
		what  string
		cdw10 func(ns *namespace) uint32
		want  spec.Status
	}{
		{"to a format that does not exist", func(ns *namespace) uint32 { return 0xf | 3<<12 }, invalidFormat},
		{"with the reserved SES 3", func(ns *namespace) uint32 { return current(ns) | 3<<9 }, spec.InvalidField},
		{"with the reserved SES 7", func(ns *namespace) uint32 { return current(ns) | 7<<9 }, spec.InvalidField},
		{"with protection information where there is no metadata", func(ns *namespace) uint32 { return current(ns) | 1<<5 }, invalidFormat},
	} {
		add(f.what+": "+describe(f.want), func(t *T, ns *namespace) {
			t.status("it", format(t, ns.id, f.cdw10(ns)), never(f.want))
		})
	}
	for _, n := range []struct {
		what string
		id   func(*T) uint32
	}{{"NSID 0", func(*T) uint32 { return 0 }}, {"an NSID above NN", (*T).inactive}, {"NSID FFFFFFFEh", func(*T) uint32 { return 0xfffffffe }}} {
		add("of "+n.what+": "+describe(spec.InvalidNamespaceOrFormat), func(t *T, ns *namespace) {
			t.status("it", format(t, n.id(t), 0), never(spec.InvalidNamespaceOrFormat))
		})
	}
	add("to every format without metadata, after which blocks of that size are written and read", func(t *T, ns *namespace) {
		id := ns.id
		if t.identity[524]&1 != 0 {
			t.skipf("a format is one of all namespaces")
		}
		before := current(ns)
		defer func() {
			t.must("Format NVM back", format(t, id, before))
			*ns = t.namespace(id)
		}()
		for i := range int(ns.data[25]) + 1 {
			lbaf := ns.data[128+4*i:]
			if t.u16(lbaf, 0) != 0 {
				continue
			}
			t.must("Format NVM", format(t, id, uint32(i&0xf)|uint32(i>>4)<<12))
			*ns = t.namespace(id)
			equal(t, "LBADS", ns.blockSize, 1<<lbaf[2])
			want := t.write(1, 3, byte(i))
			equal(t, "the right data", bytes.Equal(t.read(1, 3), want), true)
		}
	})
	return checks
}
