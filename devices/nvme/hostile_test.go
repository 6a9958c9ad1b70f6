package nvme

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

func TestIOCommandRefusals(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		file, _ := fileBackend(t, 1<<20)
		g, q := started(t, rig{mode: Shadow, byMsg: byMsg, backends: []block.Backend{memory(t, 1<<20), file}, mdts: 64 << 10})
		data := g.alloc(20)
		list := g.alloc(1)
		outside := list
		const nowhere = 1 << 50
		flagged := func(e spec.SubmissionEntry, flags uint8) spec.SubmissionEntry { e.Flags = flags; return e }
		entry := func(i int, v uint64) { binary.LittleEndian.PutUint64(g.bytes(list+uint64(i)*8, 8), v) }
		entry(0, data+pageSize)
		entry(1, data+2*pageSize+512)
		entry(4, data+pageSize)
		entry(5, nowhere)
		binary.LittleEndian.PutUint64(g.bytes(list+pageSize-8, 8), outside+8) // a chain pointer that is not aligned
		for _, c := range []struct {
			name string
			e    spec.SubmissionEntry
			want spec.Status
		}{
			{"unknown opcode", spec.SubmissionEntry{Opcode: 0x7e, NSID: 1}, spec.InvalidOpcode},
			{"unknown opcode, fused", spec.SubmissionEntry{Opcode: 0x7e, Flags: 1, NSID: 1}, spec.InvalidOpcode},
			{"compare in no namespace", rw(spec.NVMCompare, 3, 0, 8, data, 0), spec.InvalidField},
			{"compare beyond the capacity", rw(spec.NVMCompare, 1, 2047, 2, data, 0), spec.LBAOutOfRange},
			{"compare at an LBA that overflows", rw(spec.NVMCompare, 1, ^uint64(0), 2, data, 0), spec.LBAOutOfRange},
			{"compare of more than MDTS", rw(spec.NVMCompare, 1, 0, 129, data, list), spec.InvalidField},
			{"compare with a reserved PSDT", flagged(rw(spec.NVMCompare, 1, 0, 8, data, 0), 0xc0), spec.InvalidField},
			{"compare with data at an odd address", rw(spec.NVMCompare, 1, 0, 1, data+1, 0), spec.InvalidPRPOffset},
			{"compare with data nowhere", rw(spec.NVMCompare, 1, 0, 8, nowhere, 0), spec.DataTransferError},
			{"compare with a list entry nowhere", rw(spec.NVMCompare, 2, 0, 24, data, list+32), spec.DataTransferError},
			{"compare with an SGL segment of odd size", flagged(rw(spec.NVMCompare, 1, 0, 8, data, 3<<60|17), 0x40), spec.InvalidSGLSegment},
			{"write uncorrectable in no namespace", rw(spec.NVMWriteUncorrectable, spec.BroadcastNSID, 0, 8, 0, 0), spec.InvalidNamespaceOrFormat},
			{"write uncorrectable beyond the capacity", rw(spec.NVMWriteUncorrectable, 1, 2047, 2, 0, 0), spec.LBAOutOfRange},
			{"write uncorrectable at an LBA that overflows", rw(spec.NVMWriteUncorrectable, 1, ^uint64(0), 65536, 0, 0), spec.LBAOutOfRange},
			{"write uncorrectable, fused", flagged(rw(spec.NVMWriteUncorrectable, 1, 0, 8, 0, 0), 1), spec.InvalidField},
			{"verify in no namespace", rw(spec.NVMVerify, 0, 0, 8, 0, 0), spec.InvalidNamespaceOrFormat},
			{"verify beyond the capacity", rw(spec.NVMVerify, 1, 1, 2048, 0, 0), spec.LBAOutOfRange},
			{"verify of more than there is", rw(spec.NVMVerify, 1, 0, 65536, 0, 0), spec.LBAOutOfRange},
			{"verify at an LBA that overflows", rw(spec.NVMVerify, 1, ^uint64(0), 2, 0, 0), spec.LBAOutOfRange},
			{"fused", flagged(rw(spec.NVMWrite, 1, 0, 8, data, 0), 1), spec.InvalidField},
			{"reserved PSDT", flagged(rw(spec.NVMWrite, 1, 0, 8, data, 0), 0xc0), spec.InvalidField},
			{"reserved PSDT, flush", flagged(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}, 0xc0), spec.InvalidField},
			{"namespace 0", rw(spec.NVMRead, 0, 0, 8, data, 0), spec.InvalidNamespaceOrFormat},
			{"inactive namespace", rw(spec.NVMRead, 3, 0, 8, data, 0), spec.InvalidField},
			{"namespace beyond the last", rw(spec.NVMRead, MaxNamespaces+1, 0, 8, data, 0), spec.InvalidNamespaceOrFormat},
			{"all namespaces", rw(spec.NVMRead, spec.BroadcastNSID, 0, 8, data, 0), spec.InvalidNamespaceOrFormat},
			{"flush of no namespace", spec.SubmissionEntry{Opcode: spec.NVMFlush}, spec.InvalidNamespaceOrFormat},
			{"deallocate in no namespace", spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 4, PRP1: data}, spec.InvalidField},
			{"beyond the capacity", rw(spec.NVMRead, 1, 2047, 2, data, 0), spec.LBAOutOfRange},
			{"LBA that overflows", rw(spec.NVMWrite, 1, ^uint64(0), 2, data, 0), spec.LBAOutOfRange},
			{"zeroes beyond the capacity", rw(spec.NVMWriteZeroes, 1, 1, 2048, 0, 0), spec.LBAOutOfRange},
			{"longer than MDTS", rw(spec.NVMRead, 1, 0, 129, data, list), spec.InvalidField},
			{"data at an odd address", rw(spec.NVMRead, 1, 0, 1, data+1, 0), spec.InvalidPRPOffset},
			{"second page not aligned", rw(spec.NVMRead, 1, 0, 16, data, data+pageSize+4), spec.InvalidPRPOffset},
			{"list not aligned", rw(spec.NVMRead, 1, 0, 24, data, list+4), spec.InvalidPRPOffset},
			{"list entry not aligned", rw(spec.NVMRead, 1, 0, 24, data, list), spec.InvalidPRPOffset},
			{"chained list not aligned", rw(spec.NVMRead, 1, 0, 24, data, list+pageSize-8), spec.InvalidPRPOffset},
			{"data nowhere", rw(spec.NVMRead, 1, 0, 8, nowhere, 0), spec.DataTransferError},
			{"data nowhere, file", rw(spec.NVMWrite, 2, 0, 8, nowhere, 0), spec.DataTransferError},
			{"data at the end of the address space", rw(spec.NVMRead, 1, 0, 8, ^uint64(0)-4095, 0), spec.DataTransferError},
			{"second page nowhere", rw(spec.NVMRead, 1, 0, 16, data, nowhere), spec.DataTransferError},
			{"list nowhere", rw(spec.NVMRead, 1, 0, 24, data, nowhere), spec.DataTransferError},
			{"list entry nowhere", rw(spec.NVMRead, 1, 0, 24, data, list+32), spec.DataTransferError},
			{"list entry nowhere, file", rw(spec.NVMRead, 2, 0, 24, data, list+32), spec.DataTransferError},
			{"ranges nowhere", spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 1, PRP1: nowhere, CDW11: spec.DSMDeallocate}, spec.DataTransferError},
		} {
			t.Run(c.name, func(t *testing.T) {
				if st := q.status(c.e); st != c.want|spec.StatusDNR {
					t.Errorf("%v, want %v", st, c.want)
				}
				if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
					t.Errorf("the queue is broken: %v", st)
				}
			})
		}
	}
}

func TestListThatLeadsToItselfEnds(t *testing.T) {
	g, q := started(t, rig{})
	page := g.alloc(1)
	for i := uint64(0); i < pageSize; i += 8 {
		binary.LittleEndian.PutUint64(g.bytes(page+i, 8), page)
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 2048, page, page+pageSize-8)); !st.OK() {
		t.Error(st)
	}
}

func TestInvalidTailIsReportedAndIgnored(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		second := g.createQueue(2, 16)
		data := g.alloc(1)
		cid := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
		g.ring(sqDoorbell(1), 0, 64, true)
		// With shadow doorbells the driver writes the register when the controller
		// asks for it; this one always does.
		if g.dbbuf {
			g.write32(doorbellOffset+uint64(sqDoorbell(1)), 0)
		}
		if res := spec.AsyncResult(g.admin.result(cid).DW0); res.Type() != spec.AsyncError || res.Info() != spec.AsyncInvalidTail {
			t.Errorf("event %#x", uint32(res))
		}
		for range 20 {
			if st := second.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
				t.Fatalf("the other queue: %v", st)
			}
			if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
				t.Fatalf("the queue itself: %v", st)
			}
		}
	})
}

func TestFullCompletionQueueWaitsForTheHost(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 1<<20)
		r.backends = []block.Backend{memory(t, 1<<20), file}
		g, _ := started(t, r)
		// 31 commands, room for three completions.
		q := g.newQueue(2, 4)
		q.size = 32
		q.sq = g.alloc(1)
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 2 | 3<<16, CDW11: 1})
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 2 | 31<<16, CDW11: 1 | 2<<16})
		data := g.alloc(1)
		seen := map[uint16]bool{}
		var head uint32
		phase := true
		for range 3 {
			for nsid := uint32(1); nsid <= 2; nsid++ {
				old := q.tail
				for range 31 {
					q.put(rw(spec.NVMRead, nsid, 0, 8, data, 0))
				}
				q.ringTail(old)
				for got := 0; got < 31; {
					var c spec.CompletionEntry
					b := g.bytes(q.cq+uint64(head)*16, 16)
					g.until("a completion", func() bool {
						c.SetWords(dma.Load64(b, 0), dma.Load64(b, 8))
						return c.Phase == phase
					})
					if seen[c.CID] || !c.Status.OK() {
						t.Fatalf("%+v", c)
					}
					seen[c.CID] = true
					got++
					before := head
					if head++; head == 4 {
						head, phase = 0, !phase
					}
					g.ring(cqDoorbell(2), before, head, true)
				}
			}
		}
	})
}

func TestInvalidHeadIsReportedAndIgnored(t *testing.T) {
	g, q := started(t, rig{mode: Trap})
	data := g.alloc(1)
	aer := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	g.write32(doorbellOffset+uint64(cqDoorbell(1)), 64)
	if res := spec.AsyncResult(g.admin.result(aer).DW0); res.Info() != spec.AsyncInvalidTail {
		t.Errorf("event %#x", uint32(res))
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
		t.Error(st)
	}
}

func TestDoorbellsThatDoNotExist(t *testing.T) {
	g, _ := started(t, rig{mode: Trap, queues: 2})
	for _, off := range []uint64{
		uint64(sqDoorbell(2)), uint64(cqDoorbell(2)), uint64(sqDoorbell(3)), uint64(cqDoorbell(64)), bar0Size - doorbellOffset - 4,
	} {
		before := g.c.errors.total()
		g.write32(doorbellOffset+off, 1)
		if g.c.errors.total() != before+1 {
			t.Errorf("doorbell at %#x is not in the error log", off)
		}
	}
	g.disable()
	before := g.c.errors.total()
	g.write32(doorbellOffset+uint64(sqDoorbell(1)), 1)
	if g.c.errors.total() != before {
		t.Error("a doorbell of a disabled controller is in the error log")
	}
}

func TestTruncatedMemoryEndsTheClientOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		mode DoorbellMode
		prep func(g *guest, q *testQueue)
	}{
		{"while queues are polled", Mmap, func(*guest, *testQueue) {}},
		{"when a doorbell is trapped", Trap, func(g *guest, q *testQueue) { q.ringTail(0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, q := started(t, rig{mode: c.mode})
			q.put(rw(spec.NVMRead, 1, 0, 8, g.alloc(1), 0))
			if err := unix.Ftruncate(g.s.fd, 0); err != nil {
				t.Fatal(err)
			}
			if c.mode == Mmap {
				dma.Store32(g.c.doorbells.page, sqDoorbell(1), q.tail)
			}
			c.prep(g, q)
			g.wait("the session to fail", g.s.ctx.Done())
			if g.s.failure() == nil || !g.csts().CFS() {
				t.Errorf("failure %v, CSTS %#x", g.s.failure(), uint32(g.csts()))
			}
		})
	}
}

func TestTruncatedDataIsNotTheStorageFault(t *testing.T) {
	file, _ := fileBackend(t, 1<<20)
	g, q := started(t, rig{mode: Trap, backends: []block.Backend{file}})
	data := uint64(guestBase + guestSize - pageSize)
	if err := unix.Ftruncate(g.s.fd, guestSize-pageSize); err != nil {
		t.Fatal(err)
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); st != spec.DataTransferError|spec.StatusDNR {
		t.Error(st)
	}
	g.wait("the session to fail", g.s.ctx.Done())
	if !g.csts().CFS() {
		t.Error("CSTS.CFS is not set")
	}
}

// completesEverything submits entries and checks that each completes once.
func completesEverything(t *testing.T, q *testQueue, entries []spec.SubmissionEntry) {
	t.Helper()
	old := q.tail
	want := map[uint16]int{}
	for _, e := range entries {
		e.CID |= 1
		want[q.put(e)]++
	}
	q.ringTail(old)
	for got := 0; got < len(entries); {
		b := q.g.bytes(q.cq+uint64(q.head)*16, 16)
		var c spec.CompletionEntry
		q.g.until("a completion", func() bool {
			c.SetWords(dma.Load64(b, 0), dma.Load64(b, 8))
			return c.Phase == q.phase
		})
		got++
		if want[c.CID]--; want[c.CID] < 0 {
			t.Fatalf("command %#x completed too often", c.CID)
		}
		before := q.head
		if q.head++; q.head == q.size {
			q.head, q.phase = 0, !q.phase
		}
		q.g.ring(cqDoorbell(q.id), before, q.head, true)
	}
}

func TestGarbageInEveryEntry(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		file, _ := fileBackend(t, 1<<20)
		_, q := started(t, rig{mode: Shadow, byMsg: byMsg, backends: []block.Backend{memory(t, 1<<20), file}})
		rnd := rand.New(rand.NewPCG(3, 4))
		for round := range 50 {
			var entries []spec.SubmissionEntry
			for range 63 {
				var b [64]byte
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				var e spec.SubmissionEntry
				e.Get(b[:])
				if round%2 == 1 { // closer to what is valid
					e.Opcode &= 0xf
					e.Flags = 0
					e.NSID = e.NSID%2 + 1
					e.PRP1 = guestBase + e.PRP1%guestSize&^3
					e.PRP2 = guestBase + e.PRP2%guestSize&^7
					e.CDW10 &= 0xfff
					e.CDW11 &= 4
					e.CDW12 &= 0x1ff
					if e.Opcode == spec.NVMRead { // it would overwrite the queues
						e.Opcode = spec.NVMWrite
					}
				}
				entries = append(entries, e)
			}
			completesEverything(t, q, entries)
		}
	}
}
