package nvmeconformance

import (
	"encoding/binary"
	"fmt"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// sanitizeChecks are those of Sanitize.
func sanitizeChecks() (checks []Check) {
	const section = "Base 2.0, 5.24"
	const exitFailure, blockErase, overwrite, cryptoErase = 1, 2, 3, 4
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{section, "Sanitize " + rule, func(t *T) {
			t.needNamespace()
			t.need(t.u32(t.identity, 328)&7 != 0, "Sanitize")
			run(t)
		}, false})
	}
	start := func(t *T, cdw10 uint32) completion {
		return t.do(t.admin, &spec.SubmissionEntry{Opcode: sanitize, CDW10: cdw10, CDW11: 0x5aa55aa5})
	}
	status := func(t *T) []byte { return t.log(0x81, spec.BroadcastNSID, 0, 32) }
	// A namespace that is write protected keeps all of them from being sanitized.
	fixed := func(t *T) bool {
		return slices.ContainsFunc(t.namespaces, func(ns namespace) bool { return ns.protected })
	}
	finish := func(t *T) []byte {
		t.await("the sanitize operation to end", func() bool { return t.u16(status(t), 2)&7 != 2 })
		return status(t)
	}
	for _, action := range []uint32{0, 5, 6, 7} {
		add(fmt.Sprintf("with the reserved action %d: %s", action, describe(spec.InvalidField)), func(t *T) {
			t.status("it", start(t, action), never(spec.InvalidField))
		})
	}
	for _, a := range []struct {
		name   string
		action uint32
		bit    int
		passes uint32
	}{{"block erase", blockErase, 1, 0}, {"overwrite", overwrite, 2, 1 << 4}, {"crypto erase", cryptoErase, 0, 0}} {
		has := func(t *T) bool { return t.u32(t.identity, 328)>>a.bit&1 != 0 }
		add("by "+a.name+" that SANICAP does not announce: "+describe(spec.InvalidField), func(t *T) {
			t.need(!has(t), "controller without it")
			t.status("it", start(t, a.action|a.passes), never(spec.InvalidField))
		})
		add("by "+a.name+" ends, and the log says that it was successful", func(t *T) {
			t.need(has(t) && !fixed(t), a.name+" of namespaces that can be written")
			t.status("it", start(t, a.action|a.passes), spec.Success)
			log := finish(t)
			if st := t.u16(log, 2) & 7; st != 1 && st != 4 {
				t.errorf("SSTAT is %#x", t.u16(log, 2))
			}
			equal(t, "SPROG", t.u16(log, 0), 0xffff)
			equal(t, "SCDW10", t.u32(log, 4), a.action|a.passes)
		})
		add("by "+a.name+" leaves no data", func(t *T) {
			t.need(has(t) && !fixed(t), a.name+" of namespaces that can be written")
			old := t.write(0, 8, 0x55)
			t.status("it", start(t, a.action|a.passes), spec.Success)
			finish(t)
			equal(t, "the old data", string(t.read(0, 8)) == string(old), false)
		})
	}
	add("while a namespace is write protected: "+describe(spec.NamespaceWriteProtected), func(t *T) {
		t.need(fixed(t) && t.u32(t.identity, 328)>>1&1 != 0, "write protected namespace and block erase")
		t.status("it", start(t, blockErase), never(spec.NamespaceWriteProtected))
	})
	add("to leave a failure where there is none succeeds", func(t *T) { t.status("it", start(t, exitFailure), spec.Success) })
	return checks
}

// selfTestChecks are those of Device Self-test.
func selfTestChecks() (checks []Check) {
	const section = "Base 2.0, 5.9"
	const short, extended, abort = 1, 2, 0xf
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{section, "Device Self-test " + rule, func(t *T) {
			t.need(t.oacs(4), "Device Self-test")
			run(t)
		}, false})
	}
	start := func(t *T, code uint32) completion {
		return t.do(t.admin, &spec.SubmissionEntry{Opcode: deviceSelfTest, NSID: spec.BroadcastNSID, CDW10: code})
	}
	log := func(t *T) []byte { return t.log(0x06, spec.BroadcastNSID, 0, 564) }
	for _, code := range []uint32{0, 4, 5, 0xd} {
		add(fmt.Sprintf("with the reserved code %X: %s", code, describe(spec.InvalidField)), func(t *T) {
			t.status("it", start(t, code), never(spec.InvalidField))
		})
	}
	add("of an NSID above NN: "+describe(spec.InvalidNamespaceOrFormat), func(t *T) {
		t.expect("it", &spec.SubmissionEntry{Opcode: deviceSelfTest, NSID: t.inactive(), CDW10: short}, never(spec.InvalidNamespaceOrFormat))
	})
	add("that is aborted where none runs succeeds", func(t *T) { t.status("it", start(t, abort), spec.Success) })
	add("that is extended is seen in the log, refuses another one, and can be aborted", func(t *T) {
		t.must("the test", start(t, extended))
		equal(t, "current operation", log(t)[0]&0xf, extended)
		equal(t, "status of another one", start(t, short).Status.Code(), spec.SelfTestInProgress)
		t.must("abort", start(t, abort))
		t.await("the test to end", func() bool { return log(t)[0]&0xf == 0 })
		newest := log(t)[4]
		equal(t, "code of the newest result", newest>>4, extended)
		equal(t, "result", newest&0xf, 1)
	})
	add("that is short ends well and is the newest result", func(t *T) {
		t.must("the test", start(t, short))
		t.await("the test to end", func() bool { return log(t)[0]&0xf == 0 })
		newest := log(t)[4]
		equal(t, "code of the newest result", newest>>4, short)
		equal(t, "result", newest&0xf, 0)
	})
	add("that is aborted by a controller reset says so, if it was a short one", func(t *T) {
		t.must("the test", start(t, short))
		t.dirty = true
		t.up(t)
		t.await("the test to end", func() bool { return log(t)[0]&0xf == 0 })
		if r := log(t)[4] & 0xf; r != 2 {
			t.errorf("result %d, must be 2", r)
		}
	})
	return checks
}

// firmwareChecks are those of Firmware Commit and Firmware Image Download.
func firmwareChecks() (checks []Check) {
	const commit, download = "Base 2.0, 5.12", "Base 2.0, 5.13"
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.need(t.oacs(2), "firmware commands")
			t.dirty = true
			run(t)
		}, false})
	}
	send := func(t *T, off, n int) completion {
		cmd := &spec.SubmissionEntry{Opcode: firmwareDownload, CDW10: uint32(n/4 - 1), CDW11: uint32(off / 4)}
		t.with(cmd, n)
		return t.do(t.admin, cmd)
	}
	activate := func(t *T, action, slot uint32) completion {
		return t.do(t.admin, &spec.SubmissionEntry{Opcode: firmwareCommit, CDW10: action<<3 | slot})
	}
	add(download, "a piece of an image is taken", func(t *T) { t.status("it", send(t, 0, 4096), spec.Success) })
	add(download, "pieces that overlap: Overlapping Range", func(t *T) {
		t.must("the first piece", send(t, 0, 4096))
		c := send(t, 0, 4096)
		if !c.Status.OK() {
			equal(t, "status", c.Status.Code(), spec.OverlappingRange)
		}
	})
	add(commit, "no image: Invalid Firmware Image", func(t *T) {
		equal(t, "status", activate(t, 0, 2).Status.Code(), spec.InvalidFirmwareImage)
	})
	for _, action := range []uint32{4, 5} {
		add(commit, fmt.Sprintf("the reserved action %d: %s", action, describe(spec.InvalidField)), func(t *T) {
			t.status("it", activate(t, action, 1), never(spec.InvalidField))
		})
	}
	add(commit, "a slot beyond those that there are: Invalid Firmware Slot", func(t *T) {
		slots := uint32(t.identity[260] >> 1 & 7)
		t.need(slots < 7, "slot that does not exist")
		equal(t, "status", activate(t, 2, slots+1).Status.Code(), spec.InvalidFirmwareSlot)
	})
	add(commit, "an image for slot 1, where that is read-only: Invalid Firmware Slot", func(t *T) {
		t.need(t.identity[260]&1 != 0, "read-only slot")
		t.must("the download", send(t, 0, 4096))
		equal(t, "status", activate(t, 0, 1).Status.Code(), spec.InvalidFirmwareSlot)
	})
	add(commit, "to activate the slot that runs succeeds", func(t *T) {
		slot := uint32(t.log(spec.LogFirmware, spec.BroadcastNSID, 0, 512)[0] & 7)
		t.status("it", activate(t, 2, slot), spec.Success)
		t.up(t)
		equal(t, "active slot", uint32(t.log(spec.LogFirmware, spec.BroadcastNSID, 0, 512)[0]&7), slot)
	})
	add(commit, "to activate an empty slot: Invalid Firmware Image", func(t *T) {
		log := t.log(spec.LogFirmware, spec.BroadcastNSID, 0, 512)
		for slot := 1; slot <= int(t.identity[260]>>1&7); slot++ {
			if t.u64(log, 8*slot) == 0 {
				equal(t, "status", activate(t, 2, uint32(slot)).Status.Code(), spec.InvalidFirmwareImage)
				return
			}
		}
		t.skipf("no empty slot")
	})
	return checks
}

// securityChecks are those of Security Send and Security Receive.
func securityChecks() (checks []Check) {
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.need(t.oacs(0), "security commands")
			run(t)
		}, false})
	}
	command := func(t *T, opcode uint8, secp, spsp uint32, n int) (*spec.SubmissionEntry, []byte) {
		cmd := &spec.SubmissionEntry{Opcode: opcode, CDW10: secp<<24 | spsp<<8, CDW11: uint32(n)}
		return cmd, t.with(cmd, 512)
	}
	add("Base 2.0, 5.25", "Security Receive of protocol 0 lists the protocols, itself among them", func(t *T) {
		cmd, data := command(t, securityReceive, 0, 0, 512)
		t.expect("it", cmd, spec.Success)
		n := int(binary.BigEndian.Uint16(data[6:]))
		if n < 1 || data[8] != 0 {
			t.errorf("%d protocols, the first is %#x", n, data[8])
		}
		t.zero("reserved bytes", data, 0, 6)
	})
	add("Base 2.0, 5.25", "Security Receive writes no more than its allocation length", func(t *T) {
		cmd, data := command(t, securityReceive, 0, 0, 4)
		data[4], data[8] = 0xee, 0xee
		t.expect("it", cmd, spec.Success)
		equal(t, "bytes behind", data[4] == 0xee && data[8] == 0xee, true)
	})
	add("Base 2.0, 5.25", "Security Receive of a protocol that is not listed: "+describe(spec.InvalidField), func(t *T) {
		cmd, _ := command(t, securityReceive, 0xfe, 0, 512)
		t.expect("it", cmd, never(spec.InvalidField))
	})
	add("Base 2.0, 5.26", "Security Send of a protocol that is not listed: "+describe(spec.InvalidField), func(t *T) {
		cmd, _ := command(t, securitySend, 0xfe, 0, 512)
		t.expect("it", cmd, never(spec.InvalidField))
	})
	return checks
}

// directiveChecks are those of Directive Send and Directive Receive.
func directiveChecks() (checks []Check) {
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.need(t.oacs(5), "directives")
			t.need(len(t.namespaces) > 0, "namespace")
			run(t)
		}, false})
	}
	command := func(t *T, opcode uint8, kind, operation uint32) (*spec.SubmissionEntry, []byte) {
		cmd := &spec.SubmissionEntry{Opcode: opcode, NSID: t.namespaces[0].id, CDW10: 4096/4 - 1, CDW11: operation | kind<<8}
		return cmd, t.with(cmd, 4096)
	}
	const receive, send = "Base 2.0, 5.10", "Base 2.0, 5.11"
	add(receive, "the identify directive says that it is supported and enabled", func(t *T) {
		cmd, data := command(t, directiveReceive, 0, 1)
		t.expect("Directive Receive", cmd, spec.Success)
		equal(t, "supported", data[0]&1, 1)
		equal(t, "enabled", data[32]&1, 1)
	})
	add(receive, "what is enabled is supported", func(t *T) {
		cmd, data := command(t, directiveReceive, 0, 1)
		t.must("Directive Receive", t.do(t.admin, cmd))
		for i := range 32 {
			equal(t, "enabled without support", data[32+i]&^data[i], 0)
		}
	})
	add(receive, "an unknown type of directive: "+describe(spec.InvalidField), func(t *T) {
		cmd, _ := command(t, directiveReceive, 0x7f, 1)
		t.expect("Directive Receive", cmd, never(spec.InvalidField))
	})
	add(receive, "an unknown operation of the identify directive: "+describe(spec.InvalidField), func(t *T) {
		cmd, _ := command(t, directiveReceive, 0, 0x7f)
		t.expect("Directive Receive", cmd, never(spec.InvalidField))
	})
	add(send, "an unknown type of directive: "+describe(spec.InvalidField), func(t *T) {
		cmd, _ := command(t, directiveSend, 0x7f, 1)
		t.expect("Directive Send", cmd, never(spec.InvalidField))
	})
	add(send, "the identify directive cannot be disabled: "+describe(spec.InvalidField), func(t *T) {
		cmd, _ := command(t, directiveSend, 0, 1)
		cmd.CDW12 = 0 // DTYPE 0, ENDIR 0
		t.expect("Directive Send", cmd, never(spec.InvalidField))
	})
	return checks
}

// fusedChecks are those of Compare and Write, fused.
func fusedChecks() (checks []Check) {
	const section = "Base 2.0, 3.4.2"
	const first, second = 1, 2
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{section, "Compare and Write, fused: " + rule, func(t *T) {
			t.needNamespace()
			t.need(t.fuses(), "fused Compare and Write")
			run(t)
		}, false})
	}
	// pair submits the two and returns their completions.
	pair := func(t *T, compare, write []byte, change func(a, b *spec.SubmissionEntry)) (a, b completion) {
		n := len(compare) / t.ns.blockSize
		c, w := t.blocksCommand(spec.NVMCompare, 10, n), t.blocksCommand(spec.NVMWrite, 10, n)
		copy(t.with(c, len(compare)), compare)
		copy(t.with(w, len(write)), write)
		c.Flags, w.Flags = first, second
		if change != nil {
			change(c, w)
		}
		cidA, cidB := t.place(t.io, c), t.place(t.io, w)
		t.ringTail(t.io)
		return t.result(t.io, cidA), t.result(t.io, cidB)
	}
	other := func(t *T) []byte {
		b := make([]byte, 2*t.ns.blockSize)
		pattern(b, 0xc3)
		return b
	}
	add("both succeed if the data is the same", func(t *T) {
		old, next := t.write(10, 2, 1), other(t)
		a, b := pair(t, old, next, nil)
		t.status("Compare", a, spec.Success)
		t.status("Write", b, spec.Success)
		equal(t, "the new data", string(t.read(10, 2)) == string(next), true)
	})
	add("a Compare that fails aborts the Write", func(t *T) {
		old := t.write(10, 2, 1)
		a, b := pair(t, other(t), other(t), nil)
		equal(t, "status of Compare", a.Status.Code(), spec.CompareFailure)
		equal(t, "status of Write", b.Status.Code(), spec.AbortFailedFused)
		equal(t, "the old data", string(t.read(10, 2)) == string(old), true)
	})
	add("different blocks: "+describe(spec.InvalidField), func(t *T) {
		old := t.write(10, 2, 1)
		a, b := pair(t, old, other(t), func(_, w *spec.SubmissionEntry) { w.SetLBA(12) })
		equal(t, "success of either", a.Status.OK() && b.Status.OK(), false)
		equal(t, "the old data", string(t.read(10, 2)) == string(old), true)
	})
	add("a second without a first: "+describe(spec.AbortMissingFused), func(t *T) {
		w := t.blocksCommand(spec.NVMWrite, 10, 1)
		t.with(w, t.ns.blockSize)
		w.Flags = second
		equal(t, "status", t.do(t.io, w).Status.Code(), spec.AbortMissingFused)
	})
	add("a first that another command follows: "+describe(spec.AbortMissingFused), func(t *T) {
		old := t.write(10, 1, 1)
		c := t.blocksCommand(spec.NVMCompare, 10, 1)
		copy(t.with(c, len(old)), old)
		c.Flags = first
		cid := t.place(t.io, c)
		flush := t.place(t.io, &spec.SubmissionEntry{NSID: t.ns.id})
		t.ringTail(t.io)
		equal(t, "status", t.result(t.io, cid).Status.Code(), spec.AbortMissingFused)
		t.must("Flush", t.result(t.io, flush))
	})
	return checks
}
