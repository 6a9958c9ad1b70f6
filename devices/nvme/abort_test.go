package nvme

import (
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// Cancel gives a request back that waits.
func (b *slowBackend) Cancel(r *block.Request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, r)
	if i < 0 || b.stubborn {
		return false
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return true
}

// abort sends Abort and says whether it was done.
func (g *guest) abort(qid, cid uint16) bool {
	g.t.Helper()
	return g.must(spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: uint32(cid)<<16 | uint32(qid)}).DW0&1 == 0
}

// What a backend holds is aborted, whichever way it got there, and nothing of it happens.
func TestAbort(t *testing.T) {
	commands := map[string]spec.SubmissionEntry{
		"Read":               {Opcode: spec.NVMRead, CDW12: 7},
		"Write":              {Opcode: spec.NVMWrite, CDW12: 7},
		"Flush":              {Opcode: spec.NVMFlush},
		"Write Zeroes":       {Opcode: spec.NVMWriteZeroes, CDW12: 7},
		"Compare":            {Opcode: spec.NVMCompare, CDW12: 7},
		"Verify":             {Opcode: spec.NVMVerify, CDW12: 7},
		"Dataset Management": {Opcode: spec.NVMDatasetManagement, CDW11: spec.DSMDeallocate},
	}
	for name, e := range commands {
		t.Run(name, func(t *testing.T) {
			variants(t, func(t *testing.T, r rig) {
				b := &slowBackend{Backend: memory(t, 1<<20)}
				r.backends = []block.Backend{b}
				g, q := started(t, r)
				data := g.alloc(1)
				list := make([]byte, spec.DSMRangeSize)
				(&spec.DSMRange{Blocks: 8}).Put(list)
				copy(g.bytes(data, pageSize), list)
				e.NSID, e.PRP1 = 1, data
				b.hold.Store(true)
				cid := q.submit(e)
				g.until("the request", func() bool { return b.held() == 1 })
				other := q.submit(e)
				if e.Opcode != spec.NVMVerify && e.Opcode != spec.NVMDatasetManagement { // (one at a time)
					g.until("the other one", func() bool { return b.held() == 2 })
				}
				if g.abort(1, cid+100) || g.abort(2, cid) {
					t.Error("a command that there is not was aborted")
				}
				if !g.abort(1, cid) {
					t.Error("not aborted")
				}
				if !r.byMsg && !q.reap() {
					t.Error("the completion comes after that of Abort")
				}
				if st := q.result(cid).Status; st != spec.AbortRequested {
					t.Errorf("the aborted command ended with %v", st)
				}
				g.until("the other one", func() bool { return b.held() == 1 })
				b.hold.Store(false)
				b.release()
				if st := q.result(other).Status; !st.OK() && name != "Compare" {
					t.Errorf("the other one ended with %v", st)
				}
				if g.abort(1, other) {
					t.Error("a command that has ended was aborted")
				}
				if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
					t.Error(st)
				}
				if n := g.c.smart.mediaErrors.Load(); n != 0 {
					t.Errorf("%d media errors", n)
				}
			})
		})
	}
}

// A backend that does not give a request back has its way.
func TestAbortInVain(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		b := holding(memory(t, 1<<20))
		b.stubborn = true
		r.backends = []block.Backend{b}
		g, q := started(t, r)
		cid := q.submit(rw(spec.NVMRead, 1, 0, 8, g.alloc(1), 0))
		g.until("the request", func() bool { return b.held() == 1 })
		if g.abort(1, cid) {
			t.Error("aborted")
		}
		b.release()
		if st := q.result(cid).Status; !st.OK() {
			t.Error(st)
		}
	})
}

// More commands than there are couriers: those that wait for one are aborted too.
func TestAbortOfWhatWaitsForACourier(t *testing.T) {
	b := holding(memory(t, 1<<20))
	b.stubborn = true
	g, q := started(t, rig{backends: []block.Backend{b}})
	var cids []uint16
	data := g.alloc(1)
	for range maxCouriers + 2 {
		cids = append(cids, q.submit(rw(spec.NVMCompare, 1, 0, 8, data, 0)))
	}
	g.until("the requests", func() bool { return b.held() == maxCouriers })
	aborted := 0
	for _, cid := range cids {
		if g.abort(1, cid) {
			aborted++
			if st := q.result(cid).Status; st != spec.AbortRequested {
				t.Error(st)
			}
		}
	}
	if aborted != 2 {
		t.Errorf("%d commands were aborted, want 2", aborted)
	}
	b.hold.Store(false)
	b.release()
	g.until("the rest", func() bool { q.reap(); return len(q.completed) == maxCouriers })
}

// A deletion and a reset do not wait for what has not begun.
func TestDeletionAndResetAbort(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		b := &slowBackend{Backend: memory(t, 1<<20)}
		r.backends = []block.Backend{b}
		g, q := started(t, r)
		b.hold.Store(true)
		data := g.alloc(1)
		cid := q.submit(rw(spec.NVMWrite, 1, 0, 8, data, 0))
		verify := q.submit(spec.SubmissionEntry{Opcode: spec.NVMVerify, NSID: 1, CDW12: 7})
		g.until("the requests", func() bool { return b.held() == 2 })
		g.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 1})
		for _, cid := range []uint16{cid, verify} {
			if st := q.result(cid).Status; st != spec.AbortSQDeletion {
				t.Errorf("a command of the deleted queue ended with %v", st)
			}
		}
		q = g.createQueue(2, 16)
		q.submit(rw(spec.NVMWrite, 1, 0, 8, data, 0))
		q.submit(spec.SubmissionEntry{Opcode: spec.NVMVerify, NSID: 1, CDW12: 7})
		g.until("the requests", func() bool { return b.held() == 2 })
		g.disable()
		if b.held() != 0 {
			t.Errorf("after the reset the backend has %d requests", b.held())
		}
	})
}

// A client that leaves does not wait for what has not begun; nor does a reset for the flush of a
// shutdown.
func TestLeavingAndShutdownAbort(t *testing.T) {
	b := &slowBackend{Backend: memory(t, 1<<20)}
	g, _ := started(t, rig{backends: []block.Backend{b}})
	b.hold.Store(true)
	g.write32(spec.RegCC, uint32(spec.NewCC(true, 0, 6, 4).WithSHN(spec.ShutdownNormal)))
	g.until("the flush", func() bool { return b.held() == 1 })
	g.disable()
	if b.held() != 0 {
		t.Errorf("after the reset the backend has %d requests", b.held())
	}
	b.hold.Store(false)
	g.enable()
	q := g.createQueue(1, 16)

	b.hold.Store(true)
	q.submit(rw(spec.NVMWrite, 1, 0, 8, g.alloc(1), 0))
	g.until("the request", func() bool { return b.held() == 1 })
	g.leave()
	if b.held() != 0 {
		t.Errorf("after the client the backend has %d requests", b.held())
	}
}
