package nvmeconformance

import (
	"bytes"
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// prpChecks are those of PRP entries and lists, for each command with data.
func prpChecks() (checks []Check) {
	const section = "Base 2.0, 4.1.1"
	for _, o := range blockCommands {
		if !o.data {
			continue
		}
		add := func(rule string, run func(t *T)) {
			checks = append(checks, Check{section, o.name + " " + rule, func(t *T) {
				t.needNamespace()
				t.need(o.bit < 0 || t.oncs(o.bit), o.name)
				run(t)
			}, false})
		}
		// shaped builds the command for bytes of data at off of a page, of which pages come in
		// reverse order, and what is to be found there.
		shaped := func(t *T, bytesN int, off int) (cmd *spec.SubmissionEntry, gather func() []byte, want []byte) {
			n := bytesN / t.ns.blockSize
			t.need(bytesN <= t.maxTransfer() && bytesN%t.ns.blockSize == 0, "transfer of that size")
			want = t.write(0, n, byte(bytesN>>9)^byte(off))
			cmd = t.blocksCommand(o.opcode, 0, n)
			pages := (off + bytesN + pageSize - 1) / pageSize
			mem, at := t.alloc(pages * pageSize)
			page := func(i int) int { return (pages - 1 - i) * pageSize }
			cmd.PRP1 = at + uint64(page(0)+off)
			if pages == 2 {
				cmd.PRP2 = at + uint64(page(1))
			} else if pages > 2 {
				list, listAt := t.alloc(8 * (pages - 1))
				for i := 1; i < pages; i++ {
					binary.LittleEndian.PutUint64(list[8*(i-1):], at+uint64(page(i)))
				}
				cmd.PRP2 = listAt
			}
			move := func(b []byte, out bool) {
				for i := range pages {
					part := mem[page(i):][:pageSize]
					if i == 0 {
						part = part[off:]
					}
					var k int
					if out {
						k = copy(b, part)
					} else {
						k = copy(part, b)
					}
					b = b[k:]
				}
			}
			if o.opcode != spec.NVMRead {
				move(want, false)
			}
			return cmd, func() []byte { b := make([]byte, bytesN); move(b, true); return b }, want
		}
		for _, s := range []struct {
			what string
			n    int
			off  int
		}{
			{"of one page", 4096, 0}, {"of one page, from offset 4 on", 4096, 4}, {"of one page, from offset FFCh on", 4096, 0xffc},
			{"of two pages by PRP1 and PRP2", 8192, 0}, {"of two pages at an offset, by a list of two", 8192, 0x200},
			{"of three pages by a list", 12288, 0}, {"of 16 pages by a list", 65536, 0}, {"of 31 pages, from offset 800h on", 31 * 4096, 0x800},
		} {
			add(s.what+" finds its data, the pages being anywhere", func(t *T) {
				cmd, gather, want := shaped(t, s.n, s.off)
				t.expectIO("the command", cmd, spec.Success)
				switch o.opcode {
				case spec.NVMRead:
					equal(t, "the right data", bytes.Equal(gather(), want), true)
				case spec.NVMWrite:
					equal(t, "the right data", bytes.Equal(t.read(0, s.n/t.ns.blockSize), want), true)
				}
			})
		}
		add("by a list that begins in the middle of a page and goes on in the next list", func(t *T) {
			cmd, gather, want := shaped(t, 16*4096, 0)
			old := t.mem.Bytes()[cmd.PRP2-memoryAt:][:15*8]
			first, firstAt := t.alloc(pageSize)
			second, secondAt := t.alloc(pageSize)
			// Four entries in the first list, and the last place leads to the next one.
			copy(first[pageSize-5*8:], old[:4*8])
			binary.LittleEndian.PutUint64(first[pageSize-8:], secondAt)
			copy(second, old[4*8:])
			cmd.PRP2 = firstAt + pageSize - 5*8
			t.expectIO("the command", cmd, spec.Success)
			if o.opcode == spec.NVMRead {
				equal(t, "the right data", bytes.Equal(gather(), want), true)
			}
		})
		refuse := func(rule string, want spec.Status, change func(t *T, cmd *spec.SubmissionEntry)) {
			add(rule+": "+describe(want), func(t *T) {
				cmd, _, _ := shaped(t, 3*4096, 0)
				change(t, cmd)
				t.expectIO("the command", cmd, never(want))
			})
		}
		add("of two pages with PRP2 not at the beginning of a page: "+describe(spec.InvalidPRPOffset), func(t *T) {
			cmd, _, _ := shaped(t, 2*4096, 0)
			cmd.PRP2 += 0x10
			t.expectIO("the command", cmd, never(spec.InvalidPRPOffset))
		})
		refuse("by a list that is no multiple of 8", spec.InvalidPRPOffset, func(_ *T, cmd *spec.SubmissionEntry) { cmd.PRP2 += 4 })
		refuse("by a list with an entry not at the beginning of a page", spec.InvalidPRPOffset, func(t *T, cmd *spec.SubmissionEntry) {
			list := t.mem.Bytes()[cmd.PRP2-memoryAt:]
			binary.LittleEndian.PutUint64(list[8:], binary.LittleEndian.Uint64(list[8:])+0x200)
		})
		for _, m := range []struct {
			what   string
			change func(t *T, cmd *spec.SubmissionEntry)
		}{
			{"PRP1", func(_ *T, cmd *spec.SubmissionEntry) { cmd.PRP1 = nowhere }},
			{"a list", func(_ *T, cmd *spec.SubmissionEntry) { cmd.PRP2 = nowhere }},
			{"an entry of a list", func(t *T, cmd *spec.SubmissionEntry) {
				binary.LittleEndian.PutUint64(t.mem.Bytes()[cmd.PRP2-memoryAt:], nowhere)
			}},
			{"the last page", func(t *T, cmd *spec.SubmissionEntry) {
				binary.LittleEndian.PutUint64(t.mem.Bytes()[cmd.PRP2-memoryAt+8:], 1<<63)
			}},
		} {
			add("with "+m.what+" that is not mapped: "+describe(spec.DataTransferError), func(t *T) {
				cmd, _, _ := shaped(t, 3*4096, 0)
				m.change(t, cmd)
				t.expectMemoryError(t.do(t.io, cmd))
			})
		}
		add("looks at PRP2 only where one page is not enough", func(t *T) {
			cmd, _, _ := shaped(t, 4096, 0)
			cmd.PRP2 = 0x123
			t.expectIO("the command", cmd, spec.Success)
		})
	}
	return checks
}

// sglChecks are those of scatter gather lists, for Read and Write.
func sglChecks() (checks []Check) {
	const section = "Base 2.0, 4.1.2"
	const blocks = 16
	for _, o := range blockCommands[:2] {
		add := func(rule string, run func(t *T, cmd *spec.SubmissionEntry, n int)) {
			checks = append(checks, Check{section, o.name + " with " + rule, func(t *T) {
				t.needNamespace()
				t.need(t.sgls()&3 != 0, "SGLs")
				n := blocks * t.ns.blockSize
				cmd := t.blocksCommand(o.opcode, 0, blocks)
				cmd.Flags = spec.PSDTSGL << 6
				run(t, cmd, n)
			}, false})
		}
		point := func(cmd *spec.SubmissionEntry, d spec.SGLDescriptor) { cmd.PRP1, cmd.PRP2 = d.Address, d.Word }
		// list puts descriptors into memory.
		list := func(t *T, ds ...spec.SGLDescriptor) uint64 {
			b, at := t.alloc(16 * len(ds))
			for i, d := range ds {
				d.Put(b[16*i:])
			}
			return at
		}
		size := func(n int) uint32 { return uint32(16 * n) }
		d := spec.NewSGLDescriptor
		goodAs := func(psdt uint8, rule string, build func(t *T, at uint64, n int) spec.SGLDescriptor) {
			add(rule, func(t *T, cmd *spec.SubmissionEntry, n int) {
				cmd.Flags = psdt << 6
				want := t.write(0, blocks, byte(len(rule)))
				mem, at := t.alloc(n)
				if o.opcode == spec.NVMWrite {
					pattern(mem, byte(len(rule))^0x80)
					want = bytes.Clone(mem)
				}
				point(cmd, build(t, at, n))
				t.expectIO("the command", cmd, spec.Success)
				if o.opcode == spec.NVMRead {
					equal(t, "the right data", bytes.Equal(mem, want), true)
				} else {
					equal(t, "the right data", bytes.Equal(t.read(0, blocks), want), true)
				}
			})
		}
		good := func(rule string, build func(t *T, at uint64, n int) spec.SGLDescriptor) {
			goodAs(spec.PSDTSGL, rule, build)
		}
		bad := func(rule string, want spec.Status, build func(t *T, at uint64, n int) spec.SGLDescriptor) {
			add(rule+": "+describe(want), func(t *T, cmd *spec.SubmissionEntry, n int) {
				_, at := t.alloc(2 * n)
				point(cmd, build(t, at, n))
				t.expectIO("the command", cmd, never(want))
			})
		}
		const data, bucket, segment, last = spec.SGLDataBlock, spec.SGLBitBucket, spec.SGLSegment, spec.SGLLastSegment
		good("one data block", func(t *T, at uint64, n int) spec.SGLDescriptor { return d(data, at, uint32(n)) })
		good("a last segment of one descriptor", func(t *T, at uint64, n int) spec.SGLDescriptor {
			return d(last, list(t, d(data, at, uint32(n))), size(1))
		})
		good("a last segment of uneven pieces", func(t *T, at uint64, n int) spec.SGLDescriptor {
			return d(last, list(t, d(data, at, 4), d(data, at+4, 4092), d(data, at+4096, uint32(n-4096))), size(3))
		})
		good("pieces of odd lengths, if SGLS has no alignment", func(t *T, at uint64, n int) spec.SGLDescriptor {
			t.need(t.sgls()&3 == 1, "SGLs without alignment")
			return d(last, list(t, d(data, at, 1), d(data, at+1, 510), d(data, at+511, uint32(n-511))), size(3))
		})
		good("descriptors of length 0 between others", func(t *T, at uint64, n int) spec.SGLDescriptor {
			return d(last, list(t, d(data, 0, 0), d(data, at, 512), d(data, nowhere, 0), d(data, at+512, uint32(n-512))), size(4))
		})
		good("a segment that leads to a last segment", func(t *T, at uint64, n int) spec.SGLDescriptor {
			rest := list(t, d(data, at+1024, uint32(n-1024)))
			return d(segment, list(t, d(data, at, 1024), d(last, rest, size(1))), size(2))
		})
		good("three segments, the middle ones leading on", func(t *T, at uint64, n int) spec.SGLDescriptor {
			third := list(t, d(data, at+1024, uint32(n-1024)))
			second := list(t, d(data, at+512, 512), d(last, third, size(1)))
			return d(segment, list(t, d(data, at, 512), d(segment, second, size(2))), size(2))
		})
		good("a segment of nothing but a descriptor that leads on", func(t *T, at uint64, n int) spec.SGLDescriptor {
			return d(segment, list(t, d(last, list(t, d(data, at, uint32(n))), size(1))), size(1))
		})
		goodAs(spec.PSDTSGLSegment, "PSDT 2 without metadata", func(t *T, at uint64, n int) spec.SGLDescriptor { return d(data, at, uint32(n)) })
		good("more than the data, if SGLS allows it", func(t *T, at uint64, n int) spec.SGLDescriptor {
			t.need(t.sgls()>>18&1 != 0, "SGLs longer than the data")
			return d(data, at, uint32(n+512))
		})
		bad("more than the data, if SGLS does not allow it", spec.DataSGLLengthInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor {
			t.need(t.sgls()>>18&1 == 0, "controller that needs the exact length")
			return d(data, at, uint32(n+512))
		})
		bad("a data block that is too short", spec.DataSGLLengthInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor { return d(data, at, uint32(n-1)) })
		bad("a data block of length 0", spec.DataSGLLengthInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor { return d(data, at, 0) })
		bad("a last segment that is too short", spec.DataSGLLengthInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor {
			return d(last, list(t, d(data, at, uint32(n/2)), d(data, at, uint32(n/4))), size(2))
		})
		for _, kind := range []struct {
			name string
			kind uint8
		}{{"a segment", segment}, {"a last segment", last}} {
			bad(kind.name+" of length 0", spec.InvalidSGLSegment, func(t *T, at uint64, n int) spec.SGLDescriptor { return d(kind.kind, at, 0) })
			bad(kind.name+" whose length is no multiple of 16", spec.InvalidSGLSegment, func(t *T, at uint64, n int) spec.SGLDescriptor {
				return d(kind.kind, list(t, d(data, at, uint32(n)), d(data, at, 0)), 24)
			})
			bad(kind.name+" in the middle of a segment", spec.InvalidSGLSegment, func(t *T, at uint64, n int) spec.SGLDescriptor {
				rest := list(t, d(data, at, uint32(n)))
				return d(segment, list(t, d(data, at, 512), d(kind.kind, rest, size(1)), d(data, at, 512)), size(3))
			})
			bad(kind.name+" in a last segment", spec.InvalidSGLSegment, func(t *T, at uint64, n int) spec.SGLDescriptor {
				rest := list(t, d(data, at, uint32(n)))
				return d(last, list(t, d(data, at, 512), d(kind.kind, rest, size(1))), size(2))
			})
			add(kind.name+" that is not mapped: "+describe(spec.DataTransferError), func(t *T, cmd *spec.SubmissionEntry, n int) {
				point(cmd, d(kind.kind, nowhere, size(2)))
				t.expectMemoryError(t.do(t.io, cmd))
			})
		}
		bad("a segment whose last descriptor is data", spec.InvalidSGLSegment, func(t *T, at uint64, n int) spec.SGLDescriptor {
			return d(segment, list(t, d(data, at, 512), d(data, at, 512)), size(2))
		})
		for _, k := range []struct {
			kind uint8
			name string
		}{{4, "the keyed type 4"}, {5, "the transport type 5"}, {6, "the reserved type 6"}, {15, "the vendor's type Fh"}} {
			kind, name := k.kind, k.name
			bad(name, spec.SGLDescriptorTypeInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor { return d(kind, at, uint32(n)) })
			bad(name+" in a segment", spec.SGLDescriptorTypeInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor {
				return d(last, list(t, d(data, at, 512), d(kind, at, uint32(n))), size(2))
			})
		}
		bad("the sub type offset, which PCIe has not", spec.SGLDescriptorTypeInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor {
			e := d(data, at, uint32(n))
			e.Word |= 1 << 56
			return e
		})
		bad("a bit bucket, if SGLS has none", spec.SGLDescriptorTypeInvalid, func(t *T, at uint64, n int) spec.SGLDescriptor {
			t.need(t.sgls()>>16&1 == 0, "controller without bit buckets")
			return d(bucket, 0, uint32(n))
		})
		add("a data block that is not mapped: "+describe(spec.DataTransferError), func(t *T, cmd *spec.SubmissionEntry, n int) {
			point(cmd, d(data, nowhere, uint32(n)))
			t.expectMemoryError(t.do(t.io, cmd))
		})
		add("a segment that leads to itself ends with an error", func(t *T, cmd *spec.SubmissionEntry, n int) {
			b, at := t.alloc(32)
			d(data, at, 0).Put(b)
			d(segment, at, size(2)).Put(b[16:])
			point(cmd, d(segment, at, size(2)))
			c := t.do(t.io, cmd)
			equal(t, "success", c.Status.OK(), false)
			equal(t, "Do Not Retry", c.Status.DNR(), true)
		})
	}
	checks = append(checks, bitBucketChecks()...)
	return append(checks, Check{section, "SGLs are refused where SGLS does not announce them: " + describe(spec.InvalidField), func(t *T) {
		t.needNamespace()
		t.need(t.sgls()&3 == 0, "controller without SGLs")
		cmd := t.blocksCommand(spec.NVMRead, 0, 1)
		t.with(cmd, t.ns.blockSize)
		cmd.Flags = spec.PSDTSGL << 6
		t.expectIO("Read", cmd, never(spec.InvalidField))
	}, false})
}

// bitBucketChecks are those of the bit bucket descriptor.
func bitBucketChecks() (checks []Check) {
	const section = "Base 2.0, 4.1.2.1"
	const blocks = 16
	add := func(rule string, run func(t *T, n int)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.needNamespace()
			t.need(t.sgls()&3 != 0 && t.sgls()>>16&1 != 0, "bit buckets")
			run(t, blocks*t.ns.blockSize)
		}, false})
	}
	add("Read with a bit bucket leaves out its part of the data", func(t *T, n int) {
		want := t.write(0, blocks, 0x31)
		mem, at := t.alloc(n)
		b, listAt := t.alloc(48)
		spec.NewSGLDescriptor(spec.SGLDataBlock, at, 512).Put(b)
		spec.NewSGLDescriptor(spec.SGLBitBucket, 0, 1024).Put(b[16:])
		spec.NewSGLDescriptor(spec.SGLDataBlock, at+512, uint32(n-1536)).Put(b[32:])
		d := spec.NewSGLDescriptor(spec.SGLLastSegment, listAt, 48)
		cmd := t.blocksCommand(spec.NVMRead, 0, blocks)
		cmd.Flags, cmd.PRP1, cmd.PRP2 = spec.PSDTSGL<<6, d.Address, d.Word
		t.expectIO("Read", cmd, spec.Success)
		equal(t, "the right data before", bytes.Equal(mem[:512], want[:512]), true)
		equal(t, "the right data behind", bytes.Equal(mem[512:n-1024], want[1536:]), true)
		equal(t, "bytes too many", bytes.Count(mem[n-1024:], []byte{0}), 1024)
	})
	add("Write takes no data from a bit bucket: its length counts for nothing", func(t *T, n int) {
		mem, at := t.alloc(n)
		pattern(mem, 0x32)
		b, listAt := t.alloc(48)
		spec.NewSGLDescriptor(spec.SGLDataBlock, at, 512).Put(b)
		spec.NewSGLDescriptor(spec.SGLBitBucket, 0, 1024).Put(b[16:])
		spec.NewSGLDescriptor(spec.SGLDataBlock, at+512, uint32(n-512)).Put(b[32:])
		d := spec.NewSGLDescriptor(spec.SGLLastSegment, listAt, 48)
		cmd := t.blocksCommand(spec.NVMWrite, 0, blocks)
		cmd.Flags, cmd.PRP1, cmd.PRP2 = spec.PSDTSGL<<6, d.Address, d.Word
		t.expectIO("Write", cmd, spec.Success)
		equal(t, "the right data", bytes.Equal(t.read(0, blocks), mem), true)
	})
	add("Read of nothing but a bit bucket succeeds", func(t *T, n int) {
		d := spec.NewSGLDescriptor(spec.SGLBitBucket, 0, uint32(n))
		cmd := t.blocksCommand(spec.NVMRead, 0, blocks)
		cmd.Flags, cmd.PRP1, cmd.PRP2 = spec.PSDTSGL<<6, d.Address, d.Word
		t.expectIO("Read", cmd, spec.Success)
	})
	return checks
}
