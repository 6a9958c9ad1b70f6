package nvme

import (
	"bytes"
	"sync"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/test/holdings"
)

// half makes a command half of a fused pair.
func half(e spec.SubmissionEntry, fuse uint8) spec.SubmissionEntry {
	e.Flags |= fuse
	return e
}

// compareAndWrite are the two commands.
func compareAndWrite(nsid uint32, lba uint64, n int, old, next uint64) (first, second spec.SubmissionEntry) {
	return half(rw(spec.NVMCompare, nsid, lba, n, old, old+pageSize), spec.FuseFirst),
		half(rw(spec.NVMWrite, nsid, lba, n, next, next+pageSize), spec.FuseSecond)
}

// together submits commands with one doorbell write and returns their statuses.
func (q *testQueue) together(entries ...spec.SubmissionEntry) (sts []spec.Status) {
	q.g.t.Helper()
	old := q.tail
	var cids []uint16
	for _, e := range entries {
		cids = append(cids, q.put(e))
	}
	q.ringTail(old)
	for _, cid := range cids {
		sts = append(sts, q.result(cid).Status)
	}
	return sts
}

func TestCompareAndWrite(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		holdings.CheckLeaks(t)
		file, _ := fileBackend(t, 1<<20)
		r.backends = []block.Backend{memory(t, 1<<20), file}
		g, q := started(t, r)
		old, next, other := g.alloc(2), g.alloc(2), g.alloc(2)
		pattern(g.bytes(next, 2*pageSize), 1)
		pattern(g.bytes(other, 2*pageSize), 2)
		const failed, missing = spec.AbortFailedFused, spec.AbortMissingFused
		for nsid := uint32(1); nsid <= 2; nsid++ {
			q.status(rw(spec.NVMWriteUncorrectable, nsid, 1000, 1, 0, 0))
			pair := func(lba uint64, n int, old, next uint64) []spec.SubmissionEntry {
				a, b := compareAndWrite(nsid, lba, n, old, next)
				return []spec.SubmissionEntry{a, b}
			}
			with := func(e []spec.SubmissionEntry, change func(e []spec.SubmissionEntry)) []spec.SubmissionEntry {
				change(e)
				return e
			}
			read := rw(spec.NVMRead, nsid, 0, 1, g.alloc(1), 0)
			for _, c := range []struct {
				name    string
				entries []spec.SubmissionEntry
				want    []spec.Status
				holds   uint64 // what the blocks hold afterwards
			}{
				{"equal", pair(8, 16, old, next), []spec.Status{0, 0}, next},
				{"different", pair(8, 16, old, other), []spec.Status{spec.CompareFailure | spec.StatusDNR, failed}, next},
				{"equal again", pair(8, 16, next, old), []spec.Status{0, 0}, old},
				{"equal once more", pair(8, 16, old, next), []spec.Status{0, 0}, next},
				{"other blocks", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[1].SetLBA(9) }), []spec.Status{badField, badField}, next},
				{"more blocks", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[1].CDW12++ }), []spec.Status{badField, badField}, next},
				{"another namespace", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[1].NSID = 3 - nsid }), []spec.Status{badField, badField}, next},
				{"no such namespace", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[0].NSID, e[1].NSID = 9, 9 }),
					[]spec.Status{spec.InvalidField | spec.StatusDNR, failed}, next},
				{"beyond the end", pair(2040, 16, next, old), []spec.Status{spec.LBAOutOfRange | spec.StatusDNR, failed}, next},
				{"unreadable", pair(1000, 1, next, old), []spec.Status{unreadable, failed}, next},
				{"first without data", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[0].PRP1 = 1 << 50 }),
					[]spec.Status{spec.DataTransferError | spec.StatusDNR, failed}, next},
				{"second without data", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[1].PRP1 = 1 << 50 }),
					[]spec.Status{failed, spec.DataTransferError | spec.StatusDNR}, next},
				{"first alone", pair(8, 16, next, old)[:1], []spec.Status{missing}, next},
				{"a write in front, alone", []spec.SubmissionEntry{half(rw(spec.NVMWrite, nsid, 0, 1, old, 0), 1)}, []spec.Status{badField}, next},
				{"zeroes behind nothing", []spec.SubmissionEntry{half(rw(spec.NVMWriteZeroes, nsid, 0, 1, 0, 0), 2)}, []spec.Status{badField}, next},
				{"a read in front", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[0].Opcode = spec.NVMRead }), []spec.Status{badField, failed}, next},
				{"zeroes behind", with(pair(8, 16, next, old), func(e []spec.SubmissionEntry) { e[1].Opcode = spec.NVMWriteZeroes }), []spec.Status{failed, badField}, next},
				{"first and another command", []spec.SubmissionEntry{pair(8, 16, next, old)[0], read}, []spec.Status{missing, 0}, next},
				{"second alone", []spec.SubmissionEntry{pair(8, 16, next, old)[1]}, []spec.Status{missing}, next},
				{"second first", []spec.SubmissionEntry{pair(8, 16, next, old)[1], read, read}, []spec.Status{missing, 0, 0}, next},
				{"two first ones", append(pair(8, 16, next, old)[:1], pair(8, 16, next, old)...), []spec.Status{missing, 0, 0}, old},
				{"FUSE 3", []spec.SubmissionEntry{half(read, 3)}, []spec.Status{badField}, old},
			} {
				got := q.together(c.entries...)
				for i := range c.want {
					if got[i] != c.want[i] {
						t.Errorf("namespace %d, %s: command %d: %v, want %v", nsid, c.name, i, got[i], c.want[i])
					}
				}
				if st := q.status(rw(spec.NVMCompare, nsid, 8, 16, c.holds, c.holds+pageSize)); !st.OK() {
					t.Errorf("namespace %d, %s: the blocks hold something else: %v", nsid, c.name, st)
				}
			}
		}
	})
}

// Over the end of the queue, and in two doorbell writes, which makes it no pair.
func TestFusedPairsAnywhereInTheQueue(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g := newGuest(t, r)
		g.enable()
		if r.mode == Shadow {
			g.useDBBUF()
		}
		q := g.createQueue(1, 7)
		data := g.alloc(2)
		first, second := compareAndWrite(1, 0, 1, data, data)
		read := rw(spec.NVMRead, 1, 0, 1, g.alloc(1), 0)
		for i := range 40 {
			if i%3 == 0 {
				if st, st2 := q.status(first), q.status(second); st != spec.AbortMissingFused || st2 != spec.AbortMissingFused {
					t.Fatalf("%d: %v, %v", i, st, st2)
				}
			}
			for j, st := range q.together(read, first, second, read) {
				if !st.OK() {
					t.Fatalf("%d: command %d: %v", i, j, st)
				}
			}
		}
	})
}

func TestFusedPairsOverTheEndOfABatch(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		g := newGuest(t, rig{byMsg: byMsg})
		g.enable()
		q := g.createQueue(1, 1024)
		data := g.alloc(1)
		first, second := compareAndWrite(1, 0, 1, data, data)
		var entries []spec.SubmissionEntry
		for len(entries) < 900 {
			entries = append(entries, first, second)
			if len(entries)%5 == 0 {
				entries = append(entries, rw(spec.NVMRead, 1, 8, 1, data, 0))
			}
		}
		for i, st := range q.together(entries...) {
			if !st.OK() {
				t.Fatalf("command %d: %v", i, st)
			}
		}
	}
}

// Counters that hosts increase by Compare and Write lose nothing, whoever else writes.
func TestCompareAndWriteIsAtomic(t *testing.T) {
	holdings.CheckLeaks(t)
	guests, queues := sharing(t, 3, rig{backends: []block.Backend{memory(t, 1<<20)}})
	const rounds = 150
	var wg sync.WaitGroup
	for i := range guests {
		wg.Go(func() {
			g, q := guests[i], queues[i]
			old, next := g.alloc(2), g.alloc(2)
			for n := 0; n < rounds; {
				if st := q.status(rw(spec.NVMRead, 1, 0, 16, old, old+pageSize)); !st.OK() {
					t.Error(st)
					return
				}
				b := g.bytes(old, 2*pageSize)
				if !bytes.Equal(b[:8], b[2*pageSize-8:]) {
					continue // a read is not atomic
				}
				v := uint32(b[0]) | uint32(b[1])<<8
				v++
				for at := 0; at < 2*pageSize; at += 8 {
					copy(g.bytes(next, 2*pageSize)[at:], []byte{byte(v), byte(v >> 8), 0, 0, 0, 0, 0, 0})
				}
				a, w := compareAndWrite(1, 0, 16, old, next)
				switch sts := q.together(a, w); {
				case sts[0].OK() && sts[1].OK():
					n++
				case sts[0].Code() != spec.CompareFailure || sts[1] != spec.AbortFailedFused:
					t.Error(sts)
					return
				}
			}
		})
	}
	wg.Wait()
	g, q := guests[0], queues[0]
	data := g.alloc(2)
	q.status(rw(spec.NVMRead, 1, 0, 16, data, data+pageSize))
	if b := g.bytes(data, 2*pageSize); int(b[0])|int(b[1])<<8 != rounds*len(guests) || !bytes.Equal(b[:8], b[2*pageSize-8:]) {
		t.Errorf("% x … % x", b[:8], b[2*pageSize-8:])
	}
}

// A reservation that bars the write keeps the pair away.
func TestCompareAndWriteUnderAReservation(t *testing.T) {
	guests, queues := sharing(t, 2, rig{})
	queues[0].mustReserve(reg(0, 1), acq(0, 1, spec.WriteExclusive))
	data := guests[1].alloc(2)
	a, w := compareAndWrite(1, 0, 1, data, data)
	if sts := queues[1].together(a, w); sts[0] != spec.AbortFailedFused || sts[1] != conflict {
		t.Error(sts)
	}
	data = guests[0].alloc(2)
	a, w = compareAndWrite(1, 0, 1, data, data)
	if sts := queues[0].together(a, w); !sts[0].OK() || !sts[1].OK() {
		t.Error(sts)
	}
}

func TestFusedOperationsAreAnnounced(t *testing.T) {
	for mdts, want := range map[int]uint16{4096: 0, 1 << 20: 251} {
		g, _ := started(t, rig{mdts: mdts})
		page := g.alloc(1)
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: page})
		var id spec.IdentifyController
		if id.Get(g.bytes(page, pageSize)); id.FUSES != spec.FUSESCompareAndWrite || id.ACWU != want {
			t.Errorf("FUSES %#x, ACWU %d, want %d", id.FUSES, id.ACWU, want)
		}
	}
}

// An Abort of either half ends a pair that no courier has begun.
func TestAbortOfAFusedPair(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		for which := range 2 {
			b := holding(memory(t, 1<<20))
			g, q := started(t, rig{byMsg: byMsg, backends: []block.Backend{b}})
			for range maxCouriers {
				q.submit(rw(spec.NVMVerify, 1, 0, 1, 0, 0))
			}
			data := g.alloc(2)
			first, second := compareAndWrite(1, 0, 1, data, data)
			old := q.tail
			cids := [2]uint16{q.put(first), q.put(second)}
			q.ringTail(old)
			g.until("the pair to be fetched", func() bool {
				return g.must(spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: 1 | uint32(cids[which])<<16}).DW0 == 0
			})
			for i, cid := range cids {
				if st := q.result(cid).Status; st != spec.AbortRequested {
					t.Errorf("half %d: %v", i, st)
				}
			}
			b.hold.Store(false)
			b.release()
			if sts := q.together(first, second); !sts[0].OK() || !sts[1].OK() {
				t.Error(sts)
			}
		}
	}
}

// With a pair there are never more commands in flight than a queue has entries: the drive could
// not move with them.
func TestFusedPairKeepsToTheQueue(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		slow := holding(memory(t, 1<<20))
		g, _ := started(t, rig{mode: Trap, byMsg: byMsg, backends: []block.Backend{slow, memory(t, 1<<20)}})
		const size = 4
		q, other := g.newQueue(2, size), g.newQueue(3, size)
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 2 | 1<<16, CDW11: 1})
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 2 | (size-1)<<16, CDW11: 1 | 2<<16})
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: other.sq, CDW10: 3 | (size-1)<<16, CDW11: 1 | 2<<16})
		data := g.alloc(1)
		first, second := compareAndWrite(1, 0, 1, data, data)
		want := make(map[uint16]bool)
		for range size - 1 {
			want[q.submit(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1})] = true
		}
		g.until("the flushes", func() bool { return slow.held() == size-1 })
		old := q.tail
		want[q.put(first)], want[q.put(second)] = true, true
		q.ringTail(old)
		// It fills the completion queue, when the other queue was looked at.
		want[other.submit(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 2})] = true
		done := &testQueue{g: g, id: 2, size: 2, cq: q.cq, phase: true, completed: q.completed}
		g.until("its flush", func() bool { return dma.Load64(g.bytes(q.cq, 16), 8)&phaseTag != 0 })
		slow.hold.Store(false)
		slow.release()
		there := holding(memory(t, 1<<20))
		there.hold.Store(false)
		after := g.move(rig{mode: Trap, byMsg: byMsg, backends: []block.Backend{there, memory(t, 1<<20)}})
		done = after.queue(done)
		for cid := range want {
			if st := done.result(cid).Status; !st.OK() {
				t.Errorf("by message %v: command %d: %v", byMsg, cid, st)
			}
		}
	}
}
