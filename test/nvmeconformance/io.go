package nvmeconformance

import (
	"bytes"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// ioCommand is a command that names blocks by SLBA and NLB.
type ioCommand struct {
	section, name string
	opcode        uint8
	bit           int  // of ONCS; -1: mandatory
	data          bool // it transfers the blocks
	writes        bool // it changes them
}

var blockCommands = []ioCommand{
	{"NVM 1.0, 3.2.4", "Read", spec.NVMRead, -1, true, false},
	{"NVM 1.0, 3.2.6", "Write", spec.NVMWrite, -1, true, true},
	{"NVM 1.0, 3.2.1", "Compare", spec.NVMCompare, 0, true, false},
	{"NVM 1.0, 3.2.7", "Write Uncorrectable", spec.NVMWriteUncorrectable, 1, false, true},
	{"NVM 1.0, 3.2.8", "Write Zeroes", spec.NVMWriteZeroes, 3, false, true},
	{"NVM 1.0, 3.2.5", "Verify", spec.NVMVerify, 7, false, false},
}

// command builds the command with room for its data; what is compared is what is there.
func (o *ioCommand) command(t *T, lba uint64, blocks int) (*spec.SubmissionEntry, []byte) {
	t.need(o.bit < 0 || t.oncs(o.bit), o.name)
	cmd := t.blocksCommand(o.opcode, lba, blocks)
	if !o.data {
		return cmd, nil
	}
	data := t.with(cmd, blocks*t.ns.blockSize)
	if o.opcode == spec.NVMCompare && lba+uint64(blocks) <= t.ns.blocks && lba < t.ns.blocks {
		copy(data, t.read(lba, blocks))
	}
	return cmd, data
}

// ioChecks are those that all commands on blocks have in common.
func ioChecks() (checks []Check) {
	for _, o := range blockCommands {
		add := func(rule string, run func(t *T)) {
			checks = append(checks, Check{o.section, o.name + rule, func(t *T) {
				t.needNamespace()
				t.need(o.bit < 0 || t.oncs(o.bit), o.name)
				run(t)
				if o.opcode == spec.NVMWriteUncorrectable {
					t.repair()
				}
			}, false})
		}
		refuse := func(rule string, want spec.Status, change func(t *T, cmd *spec.SubmissionEntry)) {
			add(" "+rule+": "+describe(want), func(t *T) {
				cmd, _ := o.command(t, 0, 1)
				change(t, cmd)
				t.expectIO("the command", cmd, never(want))
			})
		}
		add(" of the first block", func(t *T) {
			cmd, _ := o.command(t, 0, 1)
			c := t.expectIO("the command", cmd, spec.Success)
			equal(t, "dword 0", c.DW0, 0)
		})
		add(" of the last block", func(t *T) {
			cmd, _ := o.command(t, t.ns.blocks-1, 1)
			t.expectIO("the command", cmd, spec.Success)
		})
		add(" of the last 16 blocks", func(t *T) {
			cmd, _ := o.command(t, t.ns.blocks-16, 16)
			t.expectIO("the command", cmd, spec.Success)
		})
		refuse("of NSID 0", spec.InvalidNamespaceOrFormat, func(t *T, cmd *spec.SubmissionEntry) { cmd.NSID = 0 })
		refuse("of an NSID above NN", spec.InvalidNamespaceOrFormat, func(t *T, cmd *spec.SubmissionEntry) { cmd.NSID = t.inactive() })
		refuse("of NSID FFFFFFFFh", spec.InvalidNamespaceOrFormat, func(t *T, cmd *spec.SubmissionEntry) { cmd.NSID = spec.BroadcastNSID })
		refuse("of NSID FFFFFFFEh", spec.InvalidNamespaceOrFormat, func(t *T, cmd *spec.SubmissionEntry) { cmd.NSID = 0xfffffffe })
		refuse("behind the last block", spec.LBAOutOfRange, func(t *T, cmd *spec.SubmissionEntry) { cmd.SetLBA(t.ns.blocks) })
		refuse("of the last block and one more", spec.LBAOutOfRange, func(t *T, cmd *spec.SubmissionEntry) {
			cmd.SetLBA(t.ns.blocks - 1)
			cmd.CDW12 |= 1
		})
		refuse("of blocks that wrap around 2^64", spec.LBAOutOfRange, func(t *T, cmd *spec.SubmissionEntry) {
			cmd.SetLBA(1<<64 - 1)
			cmd.CDW12 |= 1
		})
		refuse("of LBA 2^55, whose byte offset does not fit", spec.LBAOutOfRange, func(t *T, cmd *spec.SubmissionEntry) { cmd.SetLBA(1 << 55) })
		refuse("with the reserved FUSE 3", spec.InvalidField, func(t *T, cmd *spec.SubmissionEntry) { cmd.Flags = 3 })
		refuse("with the reserved PSDT 3", spec.InvalidField, func(t *T, cmd *spec.SubmissionEntry) { cmd.Flags = 3 << 6 })
		for fuse, name := range []string{1: "first", 2: "second"} {
			if fuse == 0 {
				continue
			}
			refuse("as the "+name+" of two fused commands, where there are none", spec.InvalidField, func(t *T, cmd *spec.SubmissionEntry) {
				t.need(!t.fuses(), "controller without fused commands")
				cmd.Flags = uint8(fuse)
			})
		}
		if o.opcode != spec.NVMVerify && o.opcode != spec.NVMWriteUncorrectable {
			add(" with FUA and Limited Retry", func(t *T) {
				cmd, _ := o.command(t, 0, 1)
				cmd.CDW12 |= 1<<31 | 1<<30
				t.expectIO("the command", cmd, spec.Success)
			})
		}
		if o.data {
			add(" of as much as MDTS allows", func(t *T) {
				n := t.maxTransfer() / t.ns.blockSize
				t.need(uint64(n) <= t.ns.blocks, "namespace as large as a transfer")
				cmd, _ := o.command(t, 0, n)
				t.expectIO("the command", cmd, spec.Success)
			})
			add(" of one block more than MDTS allows: "+describe(spec.InvalidField), func(t *T) {
				t.need(t.identity[77] != 0, "limit of transfers (MDTS)")
				n := t.maxTransfer()/t.ns.blockSize + 1
				t.need(uint64(n) <= t.ns.blocks && n <= 65536, "namespace as large as a transfer")
				cmd := t.blocksCommand(o.opcode, 0, n)
				t.with(cmd, t.maxTransfer())
				t.expectIO("the command", cmd, never(spec.InvalidField))
			})
		} else {
			add(" of more than MDTS is not limited by it", func(t *T) {
				n := t.maxTransfer()/t.ns.blockSize + 1
				t.need(uint64(n) <= t.ns.blocks && n <= 65536, "namespace as large as a transfer")
				cmd := t.blocksCommand(o.opcode, 0, n)
				t.expectIO("the command", cmd, spec.Success)
			})
		}
		if o.writes {
			add(" of a read-only namespace: "+describe(spec.NamespaceWriteProtected), func(t *T) {
				for i := range t.namespaces {
					if t.namespaces[i].protected {
						cmd, _ := o.command(t, 0, 1)
						cmd.NSID = t.namespaces[i].id
						t.expectIO("the command", cmd, never(spec.NamespaceWriteProtected))
						return
					}
				}
				t.skipf("no read-only namespace")
			})
		}
	}
	return checks
}

// repair makes all blocks readable that Write Uncorrectable has marked.
func (t *T) repair() {
	n := min(t.ns.blocks, 65536)
	for lba := uint64(0); lba < t.ns.blocks; lba += n {
		k := min(n, t.ns.blocks-lba)
		if t.oncs(3) {
			t.must("Write Zeroes", t.do(t.io, t.blocksCommand(spec.NVMWriteZeroes, lba, int(k))))
		}
	}
}

// dataChecks are those of what commands do to the data.
func dataChecks() (checks []Check) {
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.needNamespace(); run(t) }, false})
	}
	const read, write = "NVM 1.0, 3.2.4", "NVM 1.0, 3.2.6"
	for _, n := range []int{1, 2, 3, 7, 8, 9, 16, 33, 64, 127} {
		add(write, fmt.Sprintf("%d blocks that are written read back", n), func(t *T) {
			t.need(n*t.ns.blockSize <= t.maxTransfer(), "transfer of that size")
			want := t.write(5, n, byte(n))
			equal(t, "the same data", bytes.Equal(t.read(5, n), want), true)
		})
	}
	add(write, "Write leaves the blocks beside it alone", func(t *T) {
		t.write(0, 4, 1)
		t.write(1, 2, 2)
		data := t.read(0, 4)
		want := make([]byte, 4*t.ns.blockSize)
		pattern(want, 1)
		pattern(want[t.ns.blockSize:3*t.ns.blockSize], 2)
		equal(t, "the right data", bytes.Equal(data, want), true)
	})
	add(write, "what is written last counts", func(t *T) {
		for seed := range byte(5) {
			t.write(3, 3, seed)
		}
		want := make([]byte, 3*t.ns.blockSize)
		pattern(want, 4)
		equal(t, "the last data", bytes.Equal(t.read(3, 3), want), true)
	})
	add(read, "Read writes no byte beside its data", func(t *T) {
		t.write(0, 1, 3)
		cmd := t.blocksCommand(spec.NVMRead, 0, 1)
		data, at := t.alloc(3 * pageSize)
		for i := range data {
			data[i] = 0xee
		}
		cmd.PRP1 = at + pageSize
		t.must("Read", t.do(t.io, cmd))
		equal(t, "bytes before", bytes.Count(data[:pageSize], []byte{0xee}), pageSize)
		rest := data[pageSize+t.ns.blockSize:]
		equal(t, "bytes behind", bytes.Count(rest, []byte{0xee}), len(rest))
	})
	add(write, "a Write that is refused changes nothing", func(t *T) {
		want := t.write(t.ns.blocks-1, 1, 7)
		cmd := t.blocksCommand(spec.NVMWrite, t.ns.blocks-1, 2)
		t.with(cmd, 2*t.ns.blockSize)
		t.expectIO("the Write", cmd, never(spec.LBAOutOfRange))
		equal(t, "the same data", bytes.Equal(t.read(t.ns.blocks-1, 1), want), true)
	})
	add(write, "namespaces do not share blocks", func(t *T) {
		for i := range t.namespaces {
			other := &t.namespaces[i]
			if other.id == t.ns.id || other.blockSize != t.ns.blockSize || other.metadata != 0 || other.protected {
				continue
			}
			want := t.write(0, 1, 0x11)
			cmd := t.blocksCommand(spec.NVMWrite, 0, 1)
			cmd.NSID = other.id
			t.with(cmd, t.ns.blockSize)
			t.must("Write to the other namespace", t.do(t.io, cmd))
			equal(t, "the same data", bytes.Equal(t.read(0, 1), want), true)
			return
		}
		t.skipf("no second writable namespace of the same format")
	})
	const flush = "Base 2.0, 7.1"
	for _, f := range []struct {
		what string
		id   func(*T) uint32
		want spec.Status
	}{
		{"a namespace", func(t *T) uint32 { return t.ns.id }, spec.Success},
		{"NSID 0", func(*T) uint32 { return 0 }, never(spec.InvalidNamespaceOrFormat)},
		{"an NSID above NN", (*T).inactive, never(spec.InvalidNamespaceOrFormat)},
		{"NSID FFFFFFFEh", func(*T) uint32 { return 0xfffffffe }, never(spec.InvalidNamespaceOrFormat)},
	} {
		add(flush, "Flush of "+f.what+": "+describe(f.want), func(t *T) {
			t.expectIO("the Flush", &spec.SubmissionEntry{NSID: f.id(t)}, f.want)
		})
	}
	add(flush, "Flush of NSID FFFFFFFFh does what VWC says", func(t *T) {
		want := spec.Success
		if t.identity[525]>>1&3 == 2 {
			want = never(spec.InvalidNamespaceOrFormat)
		}
		t.expectIO("the Flush", &spec.SubmissionEntry{NSID: spec.BroadcastNSID}, want)
	})
	add(flush, "Flush with the reserved PSDT 3: "+describe(spec.InvalidField), func(t *T) {
		t.expectIO("the Flush", &spec.SubmissionEntry{NSID: t.ns.id, Flags: 3 << 6}, never(spec.InvalidField))
	})
	add(flush, "Flush with the reserved FUSE 3: "+describe(spec.InvalidField), func(t *T) {
		t.expectIO("the Flush", &spec.SubmissionEntry{NSID: t.ns.id, Flags: 3}, never(spec.InvalidField))
	})
	return append(checks, commandDataChecks()...)
}

// commandDataChecks are those of Write Zeroes, Compare and Verify.
func commandDataChecks() (checks []Check) {
	add := func(section, rule string, bit int, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.needNamespace()
			t.need(t.oncs(bit), "support of it")
			run(t)
		}, false})
	}
	zeroes := func(t *T, lba uint64, n int) bool { return bytes.Count(t.read(lba, n), []byte{0}) == n*t.ns.blockSize }
	const wz, compare, verify = "NVM 1.0, 3.2.8", "NVM 1.0, 3.2.1", "NVM 1.0, 3.2.5"
	for _, deallocate := range []bool{false, true} {
		add(wz, fmt.Sprintf("blocks read as zeroes after Write Zeroes with DEAC %v", deallocate), 3, func(t *T) {
			t.write(2, 20, 9)
			cmd := t.blocksCommand(spec.NVMWriteZeroes, 4, 10)
			if deallocate {
				cmd.CDW12 |= 1 << 25
			}
			t.expectIO("Write Zeroes", cmd, spec.Success)
			equal(t, "zeroes", zeroes(t, 4, 10), true)
			equal(t, "zeroes before", zeroes(t, 2, 2), false)
			equal(t, "zeroes behind", zeroes(t, 14, 2), false)
		})
	}
	add(wz, "Write Zeroes of a whole namespace of up to 65,536 blocks", 3, func(t *T) {
		t.need(t.ns.blocks <= 65536, "namespace so small")
		t.write(0, 1, 1)
		t.expectIO("Write Zeroes", t.blocksCommand(spec.NVMWriteZeroes, 0, int(t.ns.blocks)), spec.Success)
		equal(t, "zeroes", zeroes(t, 0, 8), true)
	})
	add(compare, "Compare with the same data succeeds", 0, func(t *T) {
		want := t.write(7, 9, 5)
		cmd := t.blocksCommand(spec.NVMCompare, 7, 9)
		copy(t.with(cmd, len(want)), want)
		t.expectIO("Compare", cmd, spec.Success)
	})
	for _, at := range []string{"first", "last"} {
		add(compare, "Compare with another "+at+" byte: "+describe(spec.CompareFailure), 0, func(t *T) {
			want := t.write(7, 9, 5)
			cmd := t.blocksCommand(spec.NVMCompare, 7, 9)
			data := t.with(cmd, len(want))
			copy(data, want)
			data[map[string]int{"first": 0, "last": len(data) - 1}[at]] ^= 1
			c := t.do(t.io, cmd)
			equal(t, "status", c.Status.Code(), spec.CompareFailure)
		})
	}
	add(compare, "Compare changes nothing", 0, func(t *T) {
		want := t.write(7, 2, 5)
		cmd := t.blocksCommand(spec.NVMCompare, 7, 2)
		t.with(cmd, len(want))
		t.do(t.io, cmd)
		equal(t, "the same data", bytes.Equal(t.read(7, 2), want), true)
	})
	add(verify, "Verify changes nothing", 7, func(t *T) {
		want := t.write(7, 2, 6)
		t.expectIO("Verify", t.blocksCommand(spec.NVMVerify, 7, 2), spec.Success)
		equal(t, "the same data", bytes.Equal(t.read(7, 2), want), true)
	})
	return checks
}
