package nvme

import (
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

const unreadable = spec.UnrecoveredRead | spec.StatusDNR

func TestUncorrectableBlocksUntilTheyAreWritten(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 1<<20)
		r.backends = []block.Backend{memory(t, 1<<20), file}
		g, q := started(t, r)
		data := g.alloc(2)
		for nsid := uint32(1); nsid <= 2; nsid++ {
			for _, c := range []struct {
				name   string
				op     uint8
				lba    uint64
				blocks int
				want   spec.Status
				at     uint64 // the block that the error log names
			}{
				{"mark", spec.NVMWriteUncorrectable, 100, 8, spec.Success, 0},
				{"read one of them", spec.NVMRead, 103, 1, unreadable, 103},
				{"read across the beginning", spec.NVMRead, 96, 8, unreadable, 100},
				{"read across the end", spec.NVMRead, 107, 2, unreadable, 107},
				{"read before", spec.NVMRead, 92, 8, spec.Success, 0},
				{"read behind", spec.NVMRead, 108, 8, spec.Success, 0},
				{"compare", spec.NVMCompare, 99, 2, unreadable, 100},
				{"verify", spec.NVMVerify, 0, 2048, unreadable, 100},
				{"verify before", spec.NVMVerify, 0, 100, spec.Success, 0},
				{"read beyond the capacity", spec.NVMRead, 2047, 2, spec.LBAOutOfRange | spec.StatusDNR, 2047},
				{"write of some", spec.NVMWrite, 102, 2, spec.Success, 0},
				{"read of what was written", spec.NVMRead, 102, 2, spec.Success, 0},
				{"read before it", spec.NVMRead, 101, 1, unreadable, 101},
				{"read behind it", spec.NVMRead, 104, 1, unreadable, 104},
				{"write behind", spec.NVMWrite, 200, 8, spec.Success, 0},
				{"zeroes over the end", spec.NVMWriteZeroes, 106, 100, spec.Success, 0},
				{"read of the zeroes", spec.NVMRead, 106, 8, spec.Success, 0},
				{"read of the rest", spec.NVMRead, 105, 1, unreadable, 105},
				{"zeroes elsewhere", spec.NVMWriteZeroes, 300, 8, spec.Success, 0},
				{"write of all", spec.NVMWrite, 98, 8, spec.Success, 0},
				{"verify of all", spec.NVMVerify, 0, 2048, spec.Success, 0},
			} {
				if st := q.status(rw(c.op, nsid, c.lba, c.blocks, data, data+pageSize)); st != c.want {
					t.Fatalf("namespace %d, %s: %v, want %v", nsid, c.name, st, c.want)
				}
				if c.want.OK() {
					continue
				}
				if e := g.lastError(); e.Status != c.want || e.LBA != c.at || e.NSID != nsid {
					t.Errorf("namespace %d, %s: error log %+v, want block %d", nsid, c.name, e, c.at)
				}
			}
		}
		if st := g.c.subsystem.uncorrectable.state(g.c); st != nil {
			t.Errorf("left: %v", st)
		}
		if n := g.c.smart.mediaErrors.Load(); n != 0 {
			t.Errorf("%d media errors", n)
		}
	})
}

func TestDeallocationDoesNotMakeBlocksReadable(t *testing.T) {
	g, q := started(t, rig{})
	data := g.alloc(1)
	q.status(rw(spec.NVMWriteUncorrectable, 1, 0, 8, 0, 0))
	(&spec.DSMRange{Blocks: 8}).Put(g.bytes(data, spec.DSMRangeSize))
	if st := q.status(spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 1, PRP1: data, CDW11: spec.DSMDeallocate}); !st.OK() {
		t.Fatal(st)
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); st != unreadable {
		t.Error(st)
	}
}

func TestFailedWriteLeavesBlocksUncorrectable(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		var broken atomic.Bool
		b := &slowBackend{Backend: memory(t, 1<<20), fail: func(r *block.Request) error {
			if broken.Load() && r.Op != block.Read {
				return &block.Error{Err: syscall.EIO}
			}
			return nil
		}}
		g, q := started(t, rig{byMsg: byMsg, backends: []block.Backend{b}})
		data := g.alloc(1)
		q.status(rw(spec.NVMWriteUncorrectable, 1, 8, 8, 0, 0))
		broken.Store(true)
		for _, op := range []uint8{spec.NVMWrite, spec.NVMWriteZeroes} {
			if st := q.status(rw(op, 1, 8, 8, data, 0)); st != spec.WriteFault {
				t.Errorf("%#x: %v", op, st)
			}
			if st := q.status(rw(spec.NVMRead, 1, 8, 1, data, 0)); st != unreadable {
				t.Errorf("%#x: %v", op, st)
			}
		}
		const nowhere = 1 << 50
		if st := q.status(rw(spec.NVMWrite, 1, 8, 8, nowhere, 0)); st != spec.DataTransferError|spec.StatusDNR {
			t.Error(st)
		}
		if st := q.status(rw(spec.NVMRead, 1, 8, 1, data, 0)); st != unreadable {
			t.Error(st)
		}
	}
}

func TestRewritingCounts(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		q.status(rw(spec.NVMWriteUncorrectable, 1, 8, 8, 0, 0))
		q.status(rw(spec.NVMWrite, 1, 8, 8, g.alloc(1), 0))
		l := &g.c.smart
		g.until("the counters", func() bool { return l.writes.Load() == 1 && l.bytesWritten.Load() == pageSize })
	})
}

// Extents against a flag for each block.
func TestExtentsFollowAModel(t *testing.T) {
	const blocks = 64
	ns := &namespace{allocation: new(allocation), blocks: blocks}
	ns.cleanTo()
	var u uncorrectable
	var model [blocks]bool
	rnd := rand.New(rand.NewPCG(3, 4))
	for step := range 20_000 {
		lba := rnd.Uint64N(blocks)
		n := 1 + rnd.Uint64N(min(blocks-lba, 9))
		mark := rnd.IntN(2) == 0
		if mark {
			if !u.mark(ns, lba, n) {
				t.Fatal("full")
			}
		} else {
			u.written(ns, lba, n)
		}
		for i := range n {
			model[lba+i] = mark
		}
		runs, first := 0, uint64(blocks)
		for i, bad := range model {
			if bad && (i == 0 || !model[i-1]) {
				runs++
				first = min(first, uint64(i))
			}
			if at, found := u.first(ns, uint64(i), 1); found != bad || bad && at != uint64(i) {
				t.Fatalf("step %d: block %d is %v, %v", step, i, at, found)
			}
		}
		if len(ns.bad) != runs || u.total != runs || ns.readable.Load() != first {
			t.Fatalf("step %d: %d extents, %d counted, want %d; first %d, want %d", step, len(ns.bad), u.total, runs, ns.readable.Load(), first)
		}
	}
}

// A host cannot make the list of extents grow without end, neither by marking nor by
// writing into what is marked.
func TestExtentsAreBounded(t *testing.T) {
	g, q := started(t, rig{})
	ns := g.c.namespace(1)
	for i := range uint64(maxExtents - 1) {
		if !g.c.subsystem.uncorrectable.mark(ns, 100+2*i, 1) {
			t.Fatalf("full after %d", i)
		}
	}
	data := g.alloc(1)
	for _, c := range []struct {
		name   string
		op     uint8
		lba    uint64
		blocks int
		want   spec.Status
	}{
		{"the last extent", spec.NVMWriteUncorrectable, 0, 16, spec.Success},
		{"one too many", spec.NVMWriteUncorrectable, 50, 1, spec.WriteFault},
		{"more of one that is there", spec.NVMWriteUncorrectable, 16, 1, spec.Success},
		{"write that would split one", spec.NVMWrite, 4, 2, spec.WriteFault},
		{"zeroes that would split one", spec.NVMWriteZeroes, 4, 2, spec.WriteFault},
		{"write of a whole one", spec.NVMWrite, 100, 1, spec.Success},
		{"write that splits one", spec.NVMWrite, 4, 2, spec.Success},
		{"two become one", spec.NVMWriteUncorrectable, 4, 2, spec.Success},
		{"and one more", spec.NVMWriteUncorrectable, 50, 1, spec.Success},
	} {
		if st := q.status(rw(c.op, 1, c.lba, c.blocks, data, 0)); st != c.want {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
}

func TestUncorrectableBlocksOutliveResetAndMove(t *testing.T) {
	r := rig{mode: Shadow}
	g, q := started(t, r)
	data := g.alloc(1)
	q.status(rw(spec.NVMWriteUncorrectable, 1, 10, 4, 0, 0))
	q.status(rw(spec.NVMWriteUncorrectable, 1, 20, 1, 0, 0))
	g.disable()
	g.enable()
	q = g.createQueue(1, 64)
	if st := q.status(rw(spec.NVMRead, 1, 8, 8, data, 0)); st != unreadable {
		t.Errorf("after a reset: %v", st)
	}
	g = g.move(r)
	q = g.queue(q)
	for lba, want := range map[uint64]spec.Status{9: spec.Success, 10: unreadable, 13: unreadable, 14: spec.Success, 20: unreadable} {
		if st := q.status(rw(spec.NVMRead, 1, lba, 1, data, 0)); st != want {
			t.Errorf("block %d after a move: %v, want %v", lba, st, want)
		}
	}
	if st := q.status(rw(spec.NVMWrite, 1, 16, 8, data, 0)); !st.OK() {
		t.Error(st)
	}
	if st := q.status(rw(spec.NVMRead, 1, 16, 8, data, 0)); !st.OK() {
		t.Error(st)
	}
}

func TestImpossibleExtentsAreRefused(t *testing.T) {
	c := newController(t, &rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	u := &c.subsystem.uncorrectable
	many := make([]uint64, 0, 4*maxExtents)
	for i := range uint64(2 * maxExtents) {
		many = append(many, 2*i, 1)
	}
	for i, st := range [][][]uint64{
		{{0, 1}},
		{{0, 1}, {0, 1}, {0, 1}},
		{{0}, {}},
		{{0, 0}, {}},
		{{0, 2049}, {}},
		{{}, {2048, 1}},
		{{}, {^uint64(0), 2}},
		{{}, {1, ^uint64(0)}},
		{{8, 1, 4, 1}, {}},
		{{8, 4, 11, 4}, {}},
		{{8, 4, 12, 4}, {}},
		{{8, ^uint64(0) - 7, 1, 4}, {}},
		{many, {}},
	} {
		if u.possible(c, st) {
			t.Errorf("state %d is taken", i)
		}
	}
	for _, st := range [][][]uint64{nil, {}, {{}, {}}, {{0, 2048}, {3, 4, 8, 1}}} {
		if !u.possible(c, st) {
			t.Errorf("%v is refused", st)
		}
	}
}

// Commands that mark, clear and read blocks, with resets and pauses in the middle of them,
// leave no mark behind once everything was written.
func TestResetsInTheMiddleOfRareCommands(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 1<<20)
		r.backends = []block.Backend{memory(t, 1<<20), file}
		g, q := started(t, r)
		data, list := g.alloc(1), g.alloc(1)
		g.putRanges(list, []spec.CopyRange{{LBA: 3, Blocks: 2}, {LBA: 1000, Blocks: 6}})
		rnd := rand.New(rand.NewPCG(5, 6))
		opcodes := []uint8{spec.NVMWriteUncorrectable, spec.NVMWriteUncorrectable, spec.NVMWrite, spec.NVMWriteZeroes,
			spec.NVMRead, spec.NVMCompare, spec.NVMVerify, spec.NVMCopy}
		for round := range 12 {
			old := q.tail
			var cids []uint16
			for range 60 {
				op, nsid, lba := opcodes[rnd.IntN(len(opcodes))], 1+rnd.Uint32N(2), rnd.Uint64N(2040)
				e := rw(op, nsid, lba, 1+rnd.IntN(8), data, 0)
				if op == spec.NVMCopy {
					e = copyTo(nsid, lba, 2, list)
				}
				cids = append(cids, q.put(e))
			}
			q.ringTail(old)
			if round%2 == 0 {
				g.lock(true)
				g.lock(false)
				for _, cid := range cids {
					st := q.result(cid).Status.Code()
					if st != spec.Success && st != spec.UnrecoveredRead && st != spec.CompareFailure {
						t.Fatal(st)
					}
				}
				continue
			}
			g.disable()
			g.enable()
			if r.mode == Shadow {
				g.useDBBUF()
			}
			q = g.createQueue(1, 64)
		}
		for nsid := uint32(1); nsid <= 2; nsid++ {
			if st := q.status(rw(spec.NVMWriteZeroes, nsid, 0, 2048, 0, 0)); !st.OK() {
				t.Error(st)
			}
			if st := q.status(rw(spec.NVMVerify, nsid, 0, 2048, 0, 0)); !st.OK() {
				t.Error(st)
			}
		}
		if st := g.c.subsystem.uncorrectable.state(g.c); st != nil {
			t.Errorf("left: %v", st)
		}
	})
}
