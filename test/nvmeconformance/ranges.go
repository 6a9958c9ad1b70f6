package nvmeconformance

import (
	"bytes"
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// blockRange is a range of Dataset Management or Copy.
type blockRange struct {
	lba    uint64
	blocks uint32
}

// rangeChecks are those of Dataset Management.
func rangeChecks() (checks []Check) {
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{"NVM 1.0, 3.2.3", "Dataset Management " + rule, func(t *T) {
			t.needNamespace()
			t.need(t.oncs(2), "Dataset Management")
			run(t)
		}, false})
	}
	const deallocate = 1 << 2
	command := func(t *T, attributes uint32, ranges ...blockRange) *spec.SubmissionEntry {
		cmd := &spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: t.ns.id, CDW10: uint32(len(ranges) - 1), CDW11: attributes}
		list := t.with(cmd, 16*len(ranges))
		for i, r := range ranges {
			binary.LittleEndian.PutUint32(list[16*i+4:], r.blocks)
			binary.LittleEndian.PutUint64(list[16*i+8:], r.lba)
		}
		return cmd
	}
	add("deallocates a range", func(t *T) {
		t.write(0, 16, 1)
		t.expectIO("it", command(t, deallocate, blockRange{4, 8}), spec.Success)
		if t.ns.data[33]&7 == 1 {
			equal(t, "zeroes", bytes.Count(t.read(4, 8), []byte{0}), 8*t.ns.blockSize)
		}
	})
	add("leaves the blocks beside a range alone", func(t *T) {
		want := t.write(0, 16, 1)
		t.expectIO("it", command(t, deallocate, blockRange{4, 8}), spec.Success)
		equal(t, "the same data before", bytes.Equal(t.read(0, 4), want[:4*t.ns.blockSize]), true)
		equal(t, "the same data behind", bytes.Equal(t.read(12, 4), want[12*t.ns.blockSize:]), true)
	})
	add("reads the same value from deallocated blocks each time", func(t *T) {
		t.write(0, 4, 1)
		t.expectIO("it", command(t, deallocate, blockRange{0, 4}), spec.Success)
		equal(t, "the same data", bytes.Equal(t.read(0, 4), t.read(0, 4)), true)
	})
	add("takes 256 ranges", func(t *T) {
		ranges := make([]blockRange, 256)
		for i := range ranges {
			ranges[i] = blockRange{uint64(2 * i), 1}
		}
		want := t.write(1, 1, 5)
		t.expectIO("it", command(t, deallocate, ranges...), spec.Success)
		equal(t, "the same data between two", bytes.Equal(t.read(1, 1), want), true)
	})
	add("takes ranges of length 0, overlapping ones, and blocks that were never written", func(t *T) {
		t.expectIO("it", command(t, deallocate, blockRange{5, 0}, blockRange{0, 8}, blockRange{4, 8}, blockRange{1000, 3}), spec.Success)
	})
	add("of the last block", func(t *T) {
		t.expectIO("it", command(t, deallocate, blockRange{t.ns.blocks - 1, 1}), spec.Success)
	})
	add("without Deallocate is a hint and changes nothing", func(t *T) {
		want := t.write(0, 4, 3)
		t.expectIO("it", command(t, 3, blockRange{0, 4}), spec.Success)
		equal(t, "the same data", bytes.Equal(t.read(0, 4), want), true)
	})
	for _, r := range []struct {
		what string
		r    func(t *T) blockRange
	}{
		{"of a range behind the last block", func(t *T) blockRange { return blockRange{t.ns.blocks, 1} }},
		{"of a range over the last block", func(t *T) blockRange { return blockRange{t.ns.blocks - 1, 2} }},
		{"of a range that wraps around 2^64", func(*T) blockRange { return blockRange{1<<64 - 1, 2} }},
	} {
		add(r.what+": "+describe(spec.LBAOutOfRange), func(t *T) {
			t.expectIO("it", command(t, deallocate, r.r(t)), never(spec.LBAOutOfRange))
		})
		add(r.what+" among others: "+describe(spec.LBAOutOfRange), func(t *T) {
			t.expectIO("it", command(t, deallocate, blockRange{0, 1}, r.r(t)), never(spec.LBAOutOfRange))
		})
	}
	for _, f := range refusedNamespaces {
		add("of "+f.what+": "+describe(spec.InvalidNamespaceOrFormat), func(t *T) {
			cmd := command(t, deallocate, blockRange{0, 1})
			cmd.NSID = f.id(t)
			t.expectIO("it", cmd, never(spec.InvalidNamespaceOrFormat))
		})
	}
	add("with the reserved FUSE 3: "+describe(spec.InvalidField), func(t *T) {
		cmd := command(t, deallocate, blockRange{0, 1})
		cmd.Flags = 3
		t.expectIO("it", cmd, never(spec.InvalidField))
	})
	add("with the reserved PSDT 3: "+describe(spec.InvalidField), func(t *T) {
		cmd := command(t, deallocate, blockRange{0, 1})
		cmd.Flags = 3 << 6
		t.expectIO("it", cmd, never(spec.InvalidField))
	})
	add("with ranges that are not mapped: "+describe(spec.DataTransferError), func(t *T) {
		cmd := command(t, deallocate, blockRange{0, 1})
		cmd.PRP1 = nowhere
		t.expectMemoryError(t.do(t.io, cmd))
	})
	add("finds its ranges on two pages", func(t *T) {
		t.write(8, 4, 9)
		cmd := command(t, deallocate, blockRange{0, 1}, blockRange{8, 2})
		list := append([]byte(nil), t.mem.Bytes()[cmd.PRP1-memoryAt:][:32]...)
		mem, at := t.alloc(2 * pageSize)
		copy(mem[pageSize-16:], list)
		cmd.PRP1, cmd.PRP2 = at+pageSize-16, at+pageSize
		t.expectIO("it", cmd, spec.Success)
		if t.ns.data[33]&7 == 1 {
			equal(t, "zeroes", bytes.Count(t.read(8, 2), []byte{0}), 2*t.ns.blockSize)
		}
	})
	add("of a read-only namespace: "+describe(spec.NamespaceWriteProtected), func(t *T) {
		for i := range t.namespaces {
			if t.namespaces[i].protected {
				cmd := command(t, deallocate, blockRange{0, 1})
				cmd.NSID = t.namespaces[i].id
				t.expectIO("it", cmd, never(spec.NamespaceWriteProtected))
				return
			}
		}
		t.skipf("no read-only namespace")
	})
	return checks
}

// refusedNamespaces are those that no command with data accepts.
var refusedNamespaces = []struct {
	what string
	id   func(t *T) uint32
}{
	{"NSID 0", func(*T) uint32 { return 0 }},
	{"an NSID above NN", (*T).inactive},
	{"NSID FFFFFFFFh", func(*T) uint32 { return spec.BroadcastNSID }},
}

// copyChecks are those of Copy.
func copyChecks() (checks []Check) {
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{"NVM 1.0, 3.2.2", "Copy " + rule, func(t *T) {
			t.needNamespace()
			t.need(t.oncs(8), "Copy")
			run(t)
		}, false})
	}
	command := func(t *T, to uint64, ranges ...blockRange) *spec.SubmissionEntry {
		cmd := &spec.SubmissionEntry{Opcode: spec.NVMCopy, NSID: t.ns.id, CDW12: uint32(len(ranges) - 1)}
		cmd.SetLBA(to)
		list := t.with(cmd, 32*len(ranges))
		for i, r := range ranges {
			binary.LittleEndian.PutUint64(list[32*i+8:], r.lba)
			binary.LittleEndian.PutUint16(list[32*i+16:], uint16(r.blocks-1))
		}
		return cmd
	}
	mssrl := func(t *T) uint32 { return uint32(t.u16(t.ns.data, 74)) }
	mcl := func(t *T) uint32 { return t.u32(t.ns.data, 76) }
	msrc := func(t *T) int { return int(t.ns.data[80]) + 1 }

	add("copies a range", func(t *T) {
		want := t.write(0, 8, 1)
		t.write(100, 8, 2)
		c := t.expectIO("it", command(t, 100, blockRange{0, 8}), spec.Success)
		equal(t, "dword 0", c.DW0, 0)
		equal(t, "the right data", bytes.Equal(t.read(100, 8), want), true)
	})
	add("leaves the source, and the blocks beside the destination, alone", func(t *T) {
		want := t.write(0, 8, 1)
		beside := t.write(99, 10, 2)
		t.expectIO("it", command(t, 100, blockRange{0, 8}), spec.Success)
		equal(t, "the same source", bytes.Equal(t.read(0, 8), want), true)
		equal(t, "the same data before", bytes.Equal(t.read(99, 1), beside[:t.ns.blockSize]), true)
		equal(t, "the same data behind", bytes.Equal(t.read(108, 1), beside[9*t.ns.blockSize:]), true)
	})
	add("puts ranges one behind the other, in their order", func(t *T) {
		t.need(msrc(t) >= 3, "three ranges (MSRC)")
		a, b, c := t.write(40, 1, 1), t.write(20, 3, 2), t.write(60, 2, 3)
		t.expectIO("it", command(t, 200, blockRange{40, 1}, blockRange{20, 3}, blockRange{60, 2}), spec.Success)
		equal(t, "the right data", bytes.Equal(t.read(200, 6), append(append(a, b...), c...)), true)
	})
	add("of as many ranges as MSRC allows", func(t *T) {
		ranges := make([]blockRange, msrc(t))
		for i := range ranges {
			ranges[i] = blockRange{uint64(i), 1}
		}
		t.need(uint32(len(ranges)) <= mcl(t), "MCL of MSRC blocks")
		t.expectIO("it", command(t, 1000, ranges...), spec.Success)
	})
	limit := func(rule string, ranges func(t *T) []blockRange) {
		add(rule+": "+describe(spec.CommandSizeLimitsExceeded), func(t *T) {
			t.expectIO("it", command(t, 1000, ranges(t)...), never(spec.CommandSizeLimitsExceeded))
		})
	}
	limit("of one range more than MSRC allows", func(t *T) []blockRange {
		t.need(msrc(t) < 256, "MSRC below the field's limit")
		ranges := make([]blockRange, msrc(t)+1)
		for i := range ranges {
			ranges[i] = blockRange{0, 1}
		}
		return ranges
	})
	limit("of a range longer than MSSRL", func(t *T) []blockRange {
		t.need(mssrl(t) < 65535 && uint64(mssrl(t)) < t.ns.blocks, "MSSRL below the field's limit")
		return []blockRange{{0, mssrl(t) + 1}}
	})
	limit("of more blocks than MCL allows", func(t *T) []blockRange {
		n := int(mcl(t)/mssrl(t)) + 1
		t.need(n <= msrc(t), "ranges that exceed MCL")
		ranges := make([]blockRange, n)
		for i := range ranges {
			ranges[i] = blockRange{0, mssrl(t)}
		}
		return ranges
	})
	for _, r := range []struct {
		what string
		to   func(t *T) uint64
		from func(t *T) blockRange
	}{
		{"from behind the last block", func(*T) uint64 { return 0 }, func(t *T) blockRange { return blockRange{t.ns.blocks, 1} }},
		{"from over the last block", func(*T) uint64 { return 0 }, func(t *T) blockRange { return blockRange{t.ns.blocks - 1, 2} }},
		{"from blocks that wrap around 2^64", func(*T) uint64 { return 0 }, func(*T) blockRange { return blockRange{1<<64 - 1, 2} }},
		{"to behind the last block", func(t *T) uint64 { return t.ns.blocks }, func(*T) blockRange { return blockRange{0, 1} }},
		{"to over the last block", func(t *T) uint64 { return t.ns.blocks - 1 }, func(*T) blockRange { return blockRange{0, 2} }},
		{"to blocks that wrap around 2^64", func(*T) uint64 { return 1<<64 - 1 }, func(*T) blockRange { return blockRange{0, 2} }},
	} {
		add(r.what+": "+describe(spec.LBAOutOfRange), func(t *T) {
			t.expectIO("it", command(t, r.to(t), r.from(t)), never(spec.LBAOutOfRange))
		})
	}
	for _, f := range refusedNamespaces {
		add("of "+f.what+": "+describe(spec.InvalidNamespaceOrFormat), func(t *T) {
			cmd := command(t, 100, blockRange{0, 1})
			cmd.NSID = f.id(t)
			t.expectIO("it", cmd, never(spec.InvalidNamespaceOrFormat))
		})
	}
	for format := range uint32(16) {
		if format != 2 && format != 4 && format < 5 {
			continue
		}
		add("with descriptor format "+string("0123456789ABCDEF"[format])+"h if OCFS does not announce it: "+describe(spec.InvalidField), func(t *T) {
			t.need(t.u16(t.identity, 534)>>format&1 == 0, "controller without that format")
			cmd := command(t, 100, blockRange{0, 1})
			cmd.CDW12 |= format << 8
			t.expectIO("it", cmd, never(spec.InvalidField))
		})
	}
	add("with ranges that are not mapped: "+describe(spec.DataTransferError), func(t *T) {
		cmd := command(t, 100, blockRange{0, 1})
		cmd.PRP1 = nowhere
		t.expectMemoryError(t.do(t.io, cmd))
	})
	add("with the reserved FUSE 3: "+describe(spec.InvalidField), func(t *T) {
		cmd := command(t, 100, blockRange{0, 1})
		cmd.Flags = 3
		t.expectIO("it", cmd, never(spec.InvalidField))
	})
	add("with the reserved PSDT 3: "+describe(spec.InvalidField), func(t *T) {
		cmd := command(t, 100, blockRange{0, 1})
		cmd.Flags = 3 << 6
		t.expectIO("it", cmd, never(spec.InvalidField))
	})
	add("announces at least format 0 (OCFS)", func(t *T) { equal(t, "OCFS bit 0", t.u16(t.identity, 534)&1, 1) })
	return checks
}

// uncorrectableChecks are those of what Write Uncorrectable does.
func uncorrectableChecks() (checks []Check) {
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{"NVM 1.0, 3.2.7", "after Write Uncorrectable " + rule, func(t *T) {
			t.needNamespace()
			t.need(t.oncs(1), "Write Uncorrectable")
			t.write(0, 16, 1)
			t.must("Write Uncorrectable", t.do(t.io, t.blocksCommand(spec.NVMWriteUncorrectable, 4, 2)))
			run(t)
			t.write(0, 16, 1)
		}, false})
	}
	code := func(t *T, what string, c completion) {
		equal(t, "status of "+what, c.Status.Code(), spec.UnrecoveredRead)
	}
	for _, o := range blockCommands {
		if o.opcode != spec.NVMRead && o.opcode != spec.NVMCompare && o.opcode != spec.NVMVerify {
			continue
		}
		for _, r := range []blockRange{{4, 1}, {0, 16}, {5, 4}} {
			add(o.name+" of blocks "+span(int(r.lba), int(r.lba)+int(r.blocks)-1)+": "+describe(spec.UnrecoveredRead), func(t *T) {
				t.need(o.bit < 0 || t.oncs(o.bit), o.name)
				cmd := t.blocksCommand(o.opcode, r.lba, int(r.blocks))
				if o.data {
					t.with(cmd, int(r.blocks)*t.ns.blockSize)
				}
				code(t, o.name, t.do(t.io, cmd))
			})
		}
		add(o.name+" of the blocks beside them succeeds", func(t *T) {
			t.need(o.bit < 0 || t.oncs(o.bit), o.name)
			cmd, _ := o.command(t, 0, 4)
			t.expectIO(o.name, cmd, spec.Success)
			cmd, _ = o.command(t, 6, 4)
			t.expectIO(o.name, cmd, spec.Success)
		})
	}
	add("Copy from such a block: "+describe(spec.UnrecoveredRead), func(t *T) {
		t.need(t.oncs(8), "Copy")
		cmd := &spec.SubmissionEntry{Opcode: spec.NVMCopy, NSID: t.ns.id, CDW10: 100}
		list := t.with(cmd, 32)
		binary.LittleEndian.PutUint64(list[8:], 4)
		code(t, "Copy", t.do(t.io, cmd))
	})
	add("a Write makes a block readable, and only that one", func(t *T) {
		want := t.write(4, 1, 9)
		equal(t, "the right data", bytes.Equal(t.read(4, 1), want), true)
		cmd := t.blocksCommand(spec.NVMRead, 5, 1)
		t.with(cmd, t.ns.blockSize)
		code(t, "Read of the other block", t.do(t.io, cmd))
	})
	add("Write Zeroes makes blocks readable", func(t *T) {
		t.need(t.oncs(3), "Write Zeroes")
		t.expectIO("Write Zeroes", t.blocksCommand(spec.NVMWriteZeroes, 4, 2), spec.Success)
		equal(t, "zeroes", bytes.Count(t.read(4, 2), []byte{0}), 2*t.ns.blockSize)
	})
	add("blocks stay unreadable over a controller reset", func(t *T) {
		t.dirty = true
		t.up(t)
		cmd := t.blocksCommand(spec.NVMRead, 4, 1)
		t.with(cmd, t.ns.blockSize)
		code(t, "Read", t.do(t.io, cmd))
	})
	add("the error log says which block could not be read", func(t *T) {
		cmd := t.blocksCommand(spec.NVMRead, 0, 16)
		t.with(cmd, 16*t.ns.blockSize)
		t.do(t.io, cmd)
		equal(t, "LBA", t.u64(t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64), 16), 4)
	})
	return checks
}
