package nvme

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// copyTo makes a Copy of so many ranges, whose list is at prp1.
func copyTo(nsid uint32, lba uint64, ranges int, prp1 uint64) spec.SubmissionEntry {
	e := spec.SubmissionEntry{Opcode: spec.NVMCopy, NSID: nsid, PRP1: prp1, CDW12: uint32(ranges - 1)}
	e.SetLBA(lba)
	return e
}

// putRanges writes a list of source ranges.
func (g *guest) putRanges(at uint64, ranges []spec.CopyRange) {
	for i := range ranges {
		ranges[i].Put(g.bytes(at+uint64(i)*spec.CopyRangeSize, spec.CopyRangeSize))
	}
}

// numbered fills blocks of a namespace so that each one holds its own number.
func (g *guest) numbered(q *testQueue, nsid uint32, blocks int) {
	g.t.Helper()
	data, list := g.alloc(blocks/8), g.alloc(3)
	for i := range blocks {
		p := g.bytes(data+uint64(i)*512, 512)
		p[0], p[1], p[511] = byte(i), byte(i>>8), byte(i)
	}
	prp1, prp2 := g.prps(data, blocks*512, list, false)
	if st := q.status(rw(spec.NVMWrite, nsid, 0, blocks, prp1, prp2)); !st.OK() {
		g.t.Fatal(st)
	}
}

func TestCopy(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 4<<20)
		r.backends = []block.Backend{memory(t, 4<<20), file}
		g, q := started(t, r)
		list, back := g.alloc(1), g.alloc(256)
		prps := g.alloc(3)
		many := make([]spec.CopyRange, maxCopyRanges)
		for i := range many {
			many[i] = spec.CopyRange{LBA: uint64(2000 - 3*i), Blocks: uint32(i%3 + 1)}
		}
		for nsid := uint32(1); nsid <= 2; nsid++ {
			for _, c := range []struct {
				name   string
				to     uint64
				ranges []spec.CopyRange
			}{
				{"one block", 4000, []spec.CopyRange{{LBA: 7, Blocks: 1}}},
				{"three ranges", 4000, []spec.CopyRange{{LBA: 70, Blocks: 10}, {LBA: 3, Blocks: 1}, {LBA: 72, Blocks: 5}}},
				{"the most ranges", 3000, many},
				{"the most blocks", 2048, []spec.CopyRange{{LBA: 0, Blocks: 2048}}},
				{"forward into itself", 10, []spec.CopyRange{{LBA: 5, Blocks: 100}}},
				{"back into itself", 5, []spec.CopyRange{{LBA: 10, Blocks: 100}}},
				{"onto itself", 20, []spec.CopyRange{{LBA: 20, Blocks: 8}}},
				{"to the end", 8191, []spec.CopyRange{{LBA: 1, Blocks: 1}}},
			} {
				t.Run(fmt.Sprintf("%s, namespace %d", c.name, nsid), func(t *testing.T) {
					g.numbered(q, nsid, 2048)
					g.putRanges(list, c.ranges)
					if st := q.status(copyTo(nsid, c.to, len(c.ranges), list)); !st.OK() {
						t.Fatal(st)
					}
					var want []byte
					for _, r := range c.ranges {
						for i := range uint64(r.Blocks) {
							b := make([]byte, 512)
							b[0], b[1], b[511] = byte(r.LBA+i), byte((r.LBA+i)>>8), byte(r.LBA+i)
							want = append(want, b...)
						}
					}
					prp1, prp2 := g.prps(back, len(want), prps, false)
					if st := q.status(rw(spec.NVMRead, nsid, c.to, len(want)/512, prp1, prp2)); !st.OK() {
						t.Fatal(st)
					}
					if !bytes.Equal(g.bytes(back, len(want)), want) {
						t.Error("the destination holds something else")
					}
				})
			}
		}
	})
}

func TestCopyRefusals(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		g, q := started(t, rig{byMsg: byMsg, backends: []block.Backend{memory(t, 4<<20)}, mdts: 64 << 10})
		list, data := g.alloc(1), g.alloc(1)
		g.numbered(q, 1, 128)
		q.status(rw(spec.NVMWriteUncorrectable, 1, 900, 2, 0, 0))
		const nowhere = 1 << 50
		one := []spec.CopyRange{{LBA: 1, Blocks: 1}}
		for _, c := range []struct {
			name   string
			change func(*spec.SubmissionEntry)
			to     uint64
			ranges []spec.CopyRange
			want   spec.Status
			at     uint64
		}{
			{"no namespace", func(e *spec.SubmissionEntry) { e.NSID = 2 }, 8, one, spec.InvalidField, 8},
			{"all namespaces", func(e *spec.SubmissionEntry) { e.NSID = spec.BroadcastNSID }, 8, one, spec.InvalidNamespaceOrFormat, 8},
			{"format 2", func(e *spec.SubmissionEntry) { e.CDW12 |= 2 << 8 }, 8, one, spec.InvalidField, 8},
			{"format 15", func(e *spec.SubmissionEntry) { e.CDW12 |= 15 << 8 }, 8, one, spec.InvalidField, 8},
			{"fused", func(e *spec.SubmissionEntry) { e.Flags = 1 }, 8, one, spec.InvalidField, 8},
			{"a range too many", func(e *spec.SubmissionEntry) { e.CDW12 += maxCopyRanges }, 8, one, spec.CommandSizeLimitsExceeded, 8},
			{"a range too long", nil, 8, []spec.CopyRange{{LBA: 1, Blocks: 129}}, spec.CommandSizeLimitsExceeded, 8},
			{"the longest range", nil, 8, []spec.CopyRange{{LBA: ^uint64(0), Blocks: 65536}}, spec.CommandSizeLimitsExceeded, 8},
			{"ranges too long together", nil, 8, []spec.CopyRange{{LBA: 1, Blocks: 100}, {LBA: 1, Blocks: 29}}, spec.CommandSizeLimitsExceeded, 8},
			{"source beyond the capacity", nil, 8, []spec.CopyRange{{LBA: 1, Blocks: 1}, {LBA: 8191, Blocks: 2}}, spec.LBAOutOfRange, 8191},
			{"source that overflows", nil, 8, []spec.CopyRange{{LBA: ^uint64(0), Blocks: 2}}, spec.LBAOutOfRange, ^uint64(0)},
			{"destination beyond the capacity", nil, 8190, []spec.CopyRange{{LBA: 1, Blocks: 2}, {LBA: 1, Blocks: 1}}, spec.LBAOutOfRange, 8190},
			{"destination that overflows", nil, ^uint64(0), []spec.CopyRange{{LBA: 1, Blocks: 2}}, spec.LBAOutOfRange, ^uint64(0)},
			{"source that cannot be read", nil, 8, []spec.CopyRange{{LBA: 1, Blocks: 1}, {LBA: 890, Blocks: 12}}, spec.UnrecoveredRead, 900},
			{"list at an odd address", func(e *spec.SubmissionEntry) { e.PRP1++ }, 8, one, spec.InvalidPRPOffset, 8},
			{"list nowhere", func(e *spec.SubmissionEntry) { e.PRP1 = nowhere }, 8, one, spec.DataTransferError, 8},
			{"list by a short SGL", func(e *spec.SubmissionEntry) { e.Flags, e.PRP2 = spec.PSDTSGL<<6, 31 }, 8, one, spec.DataSGLLengthInvalid, 8},
		} {
			t.Run(fmt.Sprintf("%s, by message %v", c.name, byMsg), func(t *testing.T) {
				g.putRanges(list, c.ranges)
				e := copyTo(1, c.to, len(c.ranges), list)
				if c.change != nil {
					c.change(&e)
				}
				want := c.want | spec.StatusDNR
				if st := q.status(e); st != want {
					t.Errorf("%v, want %v", st, want)
				}
				if e := g.lastError(); e.Status != want || e.LBA != c.at {
					t.Errorf("error log: %+v, want block %d", e, c.at)
				}
				if st := q.status(rw(spec.NVMRead, 1, 8, 1, data, 0)); !st.OK() || g.bytes(data, 1)[0] != 8 {
					t.Errorf("the destination was touched, or cannot be read: %v, %d", st, g.bytes(data, 1)[0])
				}
			})
		}
	}
}

func TestCopyMakesBlocksReadable(t *testing.T) {
	g, q := started(t, rig{})
	list, data := g.alloc(1), g.alloc(1)
	q.status(rw(spec.NVMWriteUncorrectable, 1, 100, 4, 0, 0))
	g.putRanges(list, []spec.CopyRange{{LBA: 1, Blocks: 3}})
	if st := q.status(copyTo(1, 100, 1, list)); !st.OK() {
		t.Fatal(st)
	}
	if st := q.status(rw(spec.NVMRead, 1, 100, 3, data, 0)); !st.OK() {
		t.Error(st)
	}
	if st := q.status(rw(spec.NVMRead, 1, 103, 1, data, 0)); st != unreadable {
		t.Error(st)
	}
}

func TestCopyOfFailingStorage(t *testing.T) {
	var failing atomic.Int32 // an Op
	var fua atomic.Bool
	b := &slowBackend{Backend: memory(t, 1<<20), fail: func(r *block.Request) error {
		if r.Op == block.Write {
			fua.Store(r.FUA)
		}
		if r.Op == block.Op(failing.Load()) {
			return &block.Error{Err: syscall.EIO}
		}
		return nil
	}}
	g, q := started(t, rig{backends: []block.Backend{b}})
	list := g.alloc(1)
	g.putRanges(list, []spec.CopyRange{{LBA: 1, Blocks: 3}})
	for _, c := range []struct {
		op   block.Op
		want spec.Status
	}{{block.Read, spec.UnrecoveredRead}, {block.Write, spec.WriteFault}, {block.Discard, spec.Success}} {
		failing.Store(int32(c.op))
		e := copyTo(1, 100, 1, list)
		e.CDW12 |= spec.RWForceUnit
		if st := q.status(e); st != c.want {
			t.Errorf("%v fails: %v, want %v", c.op, st, c.want)
		}
	}
	if !fua.Load() {
		t.Error("FUA does not reach the storage")
	}
}

func TestCopyLimitsAreTold(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		g, page := adminGuest(t, rig{blocks: blockSize, mdts: 2 << 20})
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: 1, PRP1: page})
		var id spec.IdentifyNamespace
		id.Get(g.bytes(page, pageSize))
		if n := uint32(2 << 20 / blockSize); id.MCL != n || uint32(id.MSSRL) != n || id.MSRC != maxCopyRanges-1 {
			t.Errorf("blocks of %d: MCL %d, MSSRL %d, MSRC %d", blockSize, id.MCL, id.MSSRL, id.MSRC)
		}
	}
}
