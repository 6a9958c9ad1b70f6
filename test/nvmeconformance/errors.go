package nvmeconformance

import (
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// errorLogChecks are those of the error log and of the More bit.
func errorLogChecks() (checks []Check) {
	const section = "Base 2.0, 5.16.1.2"
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.needNamespace(); run(t) }, false})
	}
	newest := func(t *T) []byte { return t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64) }
	fail := func(t *T) completion { return t.do(t.io, t.blocksCommand(spec.NVMRead, t.ns.blocks, 1)) }

	for _, f := range []struct {
		name     string
		admin    bool
		cmd      func(t *T) *spec.SubmissionEntry
		location uint16 // byte, and bit in 10:8
		lba      bool
	}{
		{"a Read behind the last block", false, func(t *T) *spec.SubmissionEntry { return t.blocksCommand(spec.NVMRead, t.ns.blocks+5, 1) }, 40, true},
		{"a Write behind the last block", false, func(t *T) *spec.SubmissionEntry { return t.blocksCommand(spec.NVMWrite, t.ns.blocks+6, 1) }, 40, true},
		{"an I/O command with an unknown opcode", false, func(t *T) *spec.SubmissionEntry {
			return &spec.SubmissionEntry{Opcode: 0x7f, NSID: t.ns.id}
		}, 0, false},
		{"an I/O command of an NSID above NN", false, func(t *T) *spec.SubmissionEntry {
			e := t.blocksCommand(spec.NVMRead, 0, 1)
			e.NSID = t.inactive()
			return e
		}, 4, false},
		{"an I/O command of an inactive NSID", false, func(t *T) *spec.SubmissionEntry {
			e := t.blocksCommand(spec.NVMRead, 0, 1)
			e.NSID = t.unused()
			return e
		}, 4, false},
		{"an I/O command with PSDT 3", false, func(t *T) *spec.SubmissionEntry {
			e := t.blocksCommand(spec.NVMRead, 0, 1)
			e.Flags = 3 << 6
			return e
		}, 6<<8 | 1, false},
		{"an I/O command with FUSE 3", false, func(t *T) *spec.SubmissionEntry {
			e := t.blocksCommand(spec.NVMRead, 0, 1)
			e.Flags = 3
			return e
		}, 1, false},
		{"a Read of more than MDTS", false, func(t *T) *spec.SubmissionEntry {
			t.need(t.identity[77] != 0, "limit of transfers (MDTS)")
			return t.blocksCommand(spec.NVMRead, 0, t.maxTransfer()/t.ns.blockSize+1)
		}, 48, false},
		{"a Read of two pages with a bad PRP2", false, func(t *T) *spec.SubmissionEntry {
			e := t.blocksCommand(spec.NVMRead, 0, 8192/t.ns.blockSize)
			t.with(e, 8192)
			e.PRP2 += 8
			return e
		}, 32, false},
		{"an admin command with an unknown opcode", true, func(*T) *spec.SubmissionEntry { return &spec.SubmissionEntry{Opcode: 0x7f} }, 0, false},
		{"an admin command with PSDT 1", true, func(*T) *spec.SubmissionEntry {
			return &spec.SubmissionEntry{Opcode: spec.AdminIdentify, Flags: 1 << 6, CDW10: 1}
		}, 6<<8 | 1, false},
		{"Identify with an unknown CNS", true, func(t *T) *spec.SubmissionEntry { return identifyCommand(0xff, 0) }, 40, false},
		{"Identify of an NSID above NN", true, func(t *T) *spec.SubmissionEntry { return identifyCommand(0, t.inactive()) }, 4, false},
		{"Identify of the descriptors of an inactive NSID", true, func(t *T) *spec.SubmissionEntry { return identifyCommand(3, t.unused()) }, 4, false},
		{"Identify of an unknown command set", true, func(t *T) *spec.SubmissionEntry {
			t.need(t.version() >= spec.Version2_0, "version 2.0")
			e := identifyCommand(6, 0)
			e.CDW11 = 0xff << 24
			return e
		}, 47, false},
		{"Namespace Attachment of a namespace that is not allocated", true, func(t *T) *spec.SubmissionEntry {
			t.need(t.oacs(3), "Namespace Management")
			e := &spec.SubmissionEntry{Opcode: namespaceAttachment, NSID: t.unused()}
			t.with(e, 4096)
			return e
		}, 4, false},
		{"Namespace Management that deletes a namespace that is not allocated", true, func(t *T) *spec.SubmissionEntry {
			t.need(t.oacs(3), "Namespace Management")
			return &spec.SubmissionEntry{Opcode: namespaceManagement, NSID: t.unused(), CDW10: 1}
		}, 4, false},
		{"Namespace Management with a reserved select", true, func(t *T) *spec.SubmissionEntry {
			t.need(t.oacs(3), "Namespace Management")
			return &spec.SubmissionEntry{Opcode: namespaceManagement, NSID: t.unused(), CDW10: 7}
		}, 40, false},
		{"Format NVM of a namespace that is not allocated", true, func(t *T) *spec.SubmissionEntry {
			t.need(t.oacs(1), "Format NVM")
			return &spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: t.unused()}
		}, 4, false},
		{"Format NVM with a reserved erase", true, func(t *T) *spec.SubmissionEntry {
			t.need(t.oacs(1), "Format NVM")
			return &spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: t.unused(), CDW10: 7 << 9}
		}, 1<<8 | 41, false},
		{"Get Features of an inactive NSID", true, func(t *T) *spec.SubmissionEntry {
			e := getFeature(spec.FeatErrorRecovery, 0, 0)
			e.NSID = t.unused()
			return e
		}, 4, false},
		{"Get Log Page of an unknown page", true, func(t *T) *spec.SubmissionEntry { return logCommand(0xff, 0, 0, 4) }, 40, false},
		{"Get Features of an unknown feature", true, func(t *T) *spec.SubmissionEntry { return getFeature(0xff, 0, 0) }, 40, false},
		{"Get Features with a reserved select", true, func(t *T) *spec.SubmissionEntry { return getFeature(1, 7, 0) }, 41, false},
		{"Set Features of an unknown feature", true, func(t *T) *spec.SubmissionEntry { return setFeature(0xff, 0, 0) }, 40, false},
		{"Set Features of a value that is refused", true, func(t *T) *spec.SubmissionEntry { return setFeature(spec.FeatPowerManagement, 0, 31) }, 44, false},
		{"Create I/O Completion Queue with identifier 0", true, func(*T) *spec.SubmissionEntry { return createCQ(0, 16, memoryAt, contiguous) }, 40, false},
		{"Create I/O Completion Queue of one entry", true, func(*T) *spec.SubmissionEntry { return createCQ(2, 1, memoryAt, contiguous) }, 42, false},
		{"Create I/O Completion Queue at a bad address", true, func(*T) *spec.SubmissionEntry { return createCQ(2, 16, memoryAt+8, contiguous) }, 24, false},
		{"Create I/O Completion Queue with PC 0", true, func(*T) *spec.SubmissionEntry { return createCQ(2, 16, memoryAt, 0) }, 44, false},
		{"Create I/O Completion Queue with a bad vector", true, func(*T) *spec.SubmissionEntry { return createCQ(2, 16, memoryAt, 0xffff<<16|3) }, 46, false},
		{"Create I/O Submission Queue with a bad completion queue", true, func(*T) *spec.SubmissionEntry { return createSQ(2, 16, memoryAt, contiguous, 2) }, 46, false},
		{"Delete I/O Submission Queue of one that is not there", true, func(*T) *spec.SubmissionEntry { return deleteSQ(2) }, 40, false},
		{"Delete I/O Completion Queue of one that is not there", true, func(*T) *spec.SubmissionEntry { return deleteCQ(2) }, 40, false},
	} {
		issue := func(t *T) (cmd *spec.SubmissionEntry, c completion, entry []byte) {
			cmd = f.cmd(t)
			q := t.io
			if f.admin {
				q = t.admin
			}
			c = t.do(q, cmd)
			if c.Status.OK() {
				t.fatalf("%s succeeds", f.name)
			}
			return cmd, c, newest(t)
		}
		add(f.name+" is in the log with its queue, its identifier and its namespace", func(t *T) {
			cmd, c, e := issue(t)
			equal(t, "SQID", t.u16(e, 8), c.SQID)
			equal(t, "CID", t.u16(e, 10), c.CID)
			if cmd.NSID != 0 {
				equal(t, "NSID", t.u32(e, 24), cmd.NSID)
			}
			if f.lba {
				equal(t, "LBA", t.u64(e, 16), cmd.LBA())
			}
		})
		add(f.name+" is in the log with the status of its completion", func(t *T) {
			_, c, e := issue(t)
			equal(t, "status", spec.Status(t.u16(e, 12)>>1), c.Status)
		})
		add(fmt.Sprintf("%s is in the log with the parameter in error, byte %d bit %d", f.name, f.location&0xff, f.location>>8), func(t *T) {
			_, _, e := issue(t)
			equal(t, "parameter error location", t.u16(e, 14), f.location)
		})
		add(f.name+" completes with the More bit, as the log has an entry", func(t *T) {
			_, c, _ := issue(t)
			equal(t, "More", c.Status.More(), true)
		})
	}
	add("a command that succeeds leaves no entry and has no More bit", func(t *T) {
		before := t.u64(newest(t), 0)
		c := t.do(t.io, &spec.SubmissionEntry{NSID: t.ns.id})
		equal(t, "More", c.Status.More(), false)
		equal(t, "error count", t.u64(newest(t), 0), before)
	})
	add("the error count goes up by one with each error", func(t *T) {
		before := t.u64(newest(t), 0)
		for i := range uint64(3) {
			fail(t)
			equal(t, "error count", t.u64(newest(t), 0), before+i+1)
		}
	})
	add("the newest entry comes first", func(t *T) {
		n := min(4, int(t.identity[262])+1)
		for range n {
			fail(t)
		}
		log := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64*n)
		for i := 1; i < n; i++ {
			equal(t, "count of the next entry", t.u64(log, 64*i), t.u64(log, 64*(i-1))-1)
		}
	})
	add("the log keeps ELPE + 1 entries", func(t *T) {
		n := int(t.identity[262]) + 1
		for range n + 3 {
			fail(t)
		}
		log := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64*n)
		equal(t, "entries unused", t.u64(log, 64*(n-1)) == 0, false)
	})
	add("entries that were never used are 0", func(t *T) {
		n := int(t.identity[262]) + 1
		log := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64*n)
		for i := range n {
			if t.u64(log, 64*i) == 0 {
				t.zero("entry", log, 64*i, 64*i+64)
			}
		}
	})
	add("reserved bytes of an entry are 0", func(t *T) {
		fail(t)
		e := newest(t)
		t.zero("entry", e, 42, 62)
		equal(t, "reserved bits of the parameter error location", t.u16(e, 14)>>11 == 0 || t.u16(e, 14) == 0xffff, true)
	})
	add("the log survives a controller reset", func(t *T) {
		fail(t)
		before := newest(t)
		t.dirty = true
		t.up(t)
		equal(t, "error count", t.u64(newest(t), 0), t.u64(before, 0))
	})
	return checks
}

// smartChecks are those of the SMART / health information log.
func smartChecks() (checks []Check) {
	const section = "Base 2.0, 5.16.1.3"
	add := func(rule string, run func(t *T)) { checks = append(checks, Check{section, rule, run, false}) }
	smart := func(t *T) []byte { return t.log(spec.LogSmart, spec.BroadcastNSID, 0, 512) }
	add("nothing is critical, but for media that are read-only altogether", func(t *T) {
		readOnly := uint8(1 << 3)
		for _, ns := range t.namespaces {
			if !ns.protected {
				readOnly = 0
			}
		}
		equal(t, "critical warning", smart(t)[0]&^readOnly, 0)
	})
	add("the composite temperature is above 0 °C and below WCTEMP", func(t *T) {
		if v := t.u16(smart(t), 1); v < 273 || v >= t.u16(t.identity, 266) {
			t.errorf("%d K, WCTEMP %d", v, t.u16(t.identity, 266))
		}
	})
	add("the available spare is not below its threshold, nor above 100 %", func(t *T) {
		if log := smart(t); log[3] < log[4] || log[3] > 100 {
			t.errorf("spare %d %%, threshold %d %%", log[3], log[4])
		}
	})
	add("the threshold of the spare is at most 100 %", func(t *T) { equal(t, "above", smart(t)[4] > 100, false) })
	add("reserved bytes are 0", func(t *T) {
		log := smart(t)
		t.zero("log", log, 7, 32)
		t.zero("log", log, 232, 512)
	})
	add("reserved bits of the critical warning are 0", func(t *T) { equal(t, "bits 7:6", smart(t)[0]>>6, 0) })
	add("there was at least one power cycle", func(t *T) { equal(t, "none", t.u64(smart(t), 112) == 0, false) })
	add("the upper halves of the counters are 0 for a drive that is not centuries old", func(t *T) {
		log := smart(t)
		for off := 32; off < 192; off += 16 {
			t.zero("log", log, off+8, off+16)
		}
	})
	count := func(rule string, off int, plus uint64, do func(t *T)) {
		add(rule, func(t *T) {
			t.needNamespace()
			before := t.u64(smart(t), off)
			do(t)
			// What a worker has counted shows when its round has ended.
			t.await(fmt.Sprintf("counter %d to be %d", off, before+plus), func() bool {
				return t.u64(smart(t), off) == before+plus
			})
		})
	}
	readOnce := func(t *T) { t.read(0, 1) }
	writeOnce := func(t *T) { t.write(0, 1, 1) }
	count("Host Read Commands counts a Read", 64, 1, readOnce)
	count("Host Read Commands does not count a Write", 64, 0, writeOnce)
	count("Host Write Commands counts a Write", 80, 1, writeOnce)
	count("Host Write Commands does not count a Read", 80, 0, readOnce)
	megabyte := func(t *T, op uint8) {
		n := min(t.maxTransfer(), 128<<10)
		for done := 0; done < 5120000; done += n {
			t.release()
			cmd := t.blocksCommand(op, 0, n/t.ns.blockSize)
			t.with(cmd, n)
			t.must("it", t.do(t.io, cmd))
		}
	}
	units := func(rule string, off int, op uint8) {
		add(rule, func(t *T) {
			t.needNamespace()
			before := t.u64(smart(t), off)
			megabyte(t, op)
			t.await("the units", func() bool { n := t.u64(smart(t), off) - before; return n >= 10 && n <= 11 })
		})
	}
	units("Data Units Read counts thousands of 512 bytes", 32, spec.NVMRead)
	units("Data Units Written counts thousands of 512 bytes", 48, spec.NVMWrite)
	count("the number of error log entries counts an I/O command that fails", 176, 1, func(t *T) {
		t.do(t.io, t.blocksCommand(spec.NVMRead, t.ns.blocks, 1))
	})
	count("the number of error log entries counts an admin command that fails", 176, 1, func(t *T) {
		t.do(t.admin, identifyCommand(0xff, 0))
	})
	count("unsafe shutdowns does not count a normal shutdown", 144, 0, func(t *T) {
		t.write32(spec.RegCC, uint32(spec.CC(enableValue()).WithSHN(spec.ShutdownNormal)))
		t.await("CSTS.SHST", func() bool { return t.csts().SHST() == spec.ShutComplete })
		t.dirty = true
		t.up(t)
	})
	count("power cycles does not count a controller reset", 112, 0, func(t *T) { t.dirty = true; t.up(t) })
	add("the counters survive a controller reset", func(t *T) {
		t.needNamespace()
		writeOnce(t)
		before := smart(t)
		t.dirty = true
		t.up(t)
		after := smart(t)
		for off := 32; off < 192; off += 16 {
			if t.u64(after, off) < t.u64(before, off) {
				t.errorf("counter %d went from %d to %d", off, t.u64(before, off), t.u64(after, off))
			}
		}
	})
	return checks
}
