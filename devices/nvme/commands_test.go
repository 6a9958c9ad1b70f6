package nvme

import (
	"bytes"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

func allocated(t *testing.T, path string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestDeallocateAndWriteZeroes(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, path := fileBackend(t, 16<<20)
		r.backends = []block.Backend{memory(t, 16<<20), file}
		g, q := started(t, r)
		data, list := g.alloc(64), g.alloc(1)
		full := func(nsid uint32) {
			for i := range 32 {
				copy(g.bytes(data, 256<<10), bytes.Repeat([]byte{0xaa}, 256<<10))
				prp1, prp2 := g.prps(data, 256<<10, list, false)
				if st := q.status(rw(spec.NVMWrite, nsid, uint64(i)*512, 512, prp1, prp2)); !st.OK() {
					t.Fatal(st)
				}
			}
		}
		zero := func(nsid uint32, lba uint64) bool {
			if st := q.status(rw(spec.NVMRead, nsid, lba, 8, data, 0)); !st.OK() {
				t.Fatal(st)
			}
			return bytes.Equal(g.bytes(data, pageSize), make([]byte, pageSize))
		}
		for nsid := uint32(1); nsid <= 2; nsid++ {
			full(nsid)
			ranges := []spec.DSMRange{{Blocks: 4096, LBA: 0}, {Blocks: 0, LBA: 9}, {Blocks: 8, LBA: 8192}, {Blocks: 4088, LBA: 8200}}
			page := g.alloc(1)
			for i, r := range ranges {
				r.Put(g.bytes(page+uint64(i)*16, 16))
			}
			dsm := spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: nsid, PRP1: page, CDW10: uint32(len(ranges) - 1), CDW11: spec.DSMDeallocate}
			before := allocated(t, path)
			if st := q.status(dsm); !st.OK() {
				t.Fatal(st)
			}
			for _, lba := range []uint64{0, 4088, 8192, 12280} {
				if !zero(nsid, lba) {
					t.Errorf("namespace %d: block %d is not deallocated", nsid, lba)
				}
			}
			if zero(nsid, 4096) || zero(nsid, 8184) || zero(nsid, 12288) {
				t.Errorf("namespace %d: too much is deallocated", nsid)
			}
			if after := allocated(t, path); nsid == 2 && after > before-4<<20 {
				t.Errorf("the file has %d bytes, before %d", after, before)
			}
			// A range outside: nothing is done.
			bad := spec.DSMRange{Blocks: 2, LBA: 16<<11 - 1}
			bad.Put(g.bytes(page+16, 16))
			(&spec.DSMRange{Blocks: 8, LBA: 4096}).Put(g.bytes(page, 16))
			if st := q.status(dsm); st != spec.LBAOutOfRange|spec.StatusDNR {
				t.Errorf("namespace %d: %v", nsid, st)
			}
			if zero(nsid, 4096) {
				t.Errorf("namespace %d: the range before an invalid one was deallocated", nsid)
			}
			dsm.CDW11 = 1 // integral dataset for read: a hint
			if st := q.status(dsm); !st.OK() {
				t.Error(st)
			}
			wz := rw(spec.NVMWriteZeroes, nsid, 4096, 4096, 0, 0)
			wz.CDW12 |= spec.RWDeallocate
			if st := q.status(wz); !st.OK() {
				t.Error(st)
			}
			if !zero(nsid, 4096) || !zero(nsid, 8184) {
				t.Errorf("namespace %d: not zeroed", nsid)
			}
		}
	})
}

func TestFlush(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		a, b := &slowBackend{Backend: memory(t, 1<<20)}, &slowBackend{Backend: memory(t, 1<<20)}
		r.backends = []block.Backend{a, b}
		_, q := started(t, r)
		if st := q.status(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}); !st.OK() {
			t.Error(st)
		}
		if a.flushes.Load() != 1 || b.flushes.Load() != 0 {
			t.Errorf("flushed %d, %d times", a.flushes.Load(), b.flushes.Load())
		}
		if st := q.status(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: spec.BroadcastNSID}); !st.OK() {
			t.Error(st)
		}
		if a.flushes.Load() != 2 || b.flushes.Load() != 1 {
			t.Errorf("flushed %d, %d times", a.flushes.Load(), b.flushes.Load())
		}
	})
}

func TestForceUnitAccess(t *testing.T) {
	var fua atomic.Int32
	b := &slowBackend{Backend: memory(t, 1<<20)}
	b.fail = func(r *block.Request) error {
		if r.FUA {
			fua.Add(1)
		}
		return nil
	}
	g, q := started(t, rig{backends: []block.Backend{b}})
	data := g.alloc(1)
	write := func(bits uint32) int32 {
		before := fua.Load()
		e := rw(spec.NVMWrite, 1, 0, 8, data, 0)
		e.CDW12 |= bits
		if st := q.status(e); !st.OK() {
			t.Fatal(st)
		}
		return fua.Load() - before
	}
	if write(0) != 0 || write(spec.RWForceUnit) != 1 {
		t.Error("FUA does not follow the command")
	}
	flushes := b.flushes.Load()
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatVolatileWriteCache})
	if b.flushes.Load() != flushes+1 || write(0) != 1 {
		t.Error("the write cache is not off")
	}
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatVolatileWriteCache, CDW11: 1})
	if write(0) != 0 {
		t.Error("the write cache is not on")
	}
}

func TestBackendErrorsHaveTheirStatus(t *testing.T) {
	var fail atomic.Pointer[error]
	b := &slowBackend{Backend: memory(t, 1<<20), fail: func(*block.Request) error {
		if err := fail.Load(); err != nil {
			return *err
		}
		return nil
	}}
	g, q := started(t, rig{backends: []block.Backend{b}})
	data := g.alloc(1)
	for _, c := range []struct {
		name string
		op   uint8
		err  error
		want spec.Status
	}{
		{"read error", spec.NVMRead, &block.Error{Err: syscall.EIO}, spec.UnrecoveredRead},
		{"write error", spec.NVMWrite, &block.Error{Err: syscall.EIO}, spec.WriteFault},
		{"no space", spec.NVMWrite, &block.Error{Err: syscall.ENOSPC}, spec.CapacityExceeded | spec.StatusDNR},
		{"no quota", spec.NVMWriteZeroes, &block.Error{Err: syscall.EDQUOT}, spec.CapacityExceeded | spec.StatusDNR},
		{"read-only", spec.NVMWrite, block.ErrReadOnly, spec.NamespaceWriteProtected | spec.StatusDNR},
		{"range", spec.NVMRead, block.ErrRange, spec.LBAOutOfRange | spec.StatusDNR},
		{"closed", spec.NVMRead, block.ErrClosed, spec.InternalError | spec.StatusDNR},
		{"unknown", spec.NVMFlush, errors.New("x"), spec.WriteFault},
	} {
		fail.Store(&c.err)
		if st := q.status(rw(c.op, 1, 0, 8, data, 0)); st != c.want {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
	fail.Store(nil)
}

func TestReadOnlyNamespace(t *testing.T) {
	_, path := fileBackend(t, 1<<20)
	ro, err := block.File(path, block.FileOptions{ReadOnly: true})
	if err != nil {
		t.Skip("the file system does not share a file that is open for writing:", err)
	}
	g, q := started(t, rig{backends: []block.Backend{ro}})
	data := g.alloc(1)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: 1, PRP1: data})
	var id spec.IdentifyNamespace
	id.Get(g.bytes(data, pageSize))
	if id.NSATTR != spec.NSAttrProtected {
		t.Errorf("NSATTR %#x", id.NSATTR)
	}
	dsm := spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 1, PRP1: data, CDW11: spec.DSMDeallocate}
	for _, e := range []spec.SubmissionEntry{rw(spec.NVMWrite, 1, 0, 8, data, 0), rw(spec.NVMWriteZeroes, 1, 0, 8, 0, 0), rw(spec.NVMWriteUncorrectable, 1, 0, 8, 0, 0),
		copyTo(1, 0, 1, data), dsm} {
		if st := q.status(e); st != spec.NamespaceWriteProtected|spec.StatusDNR {
			t.Errorf("%#x: %v", e.Opcode, st)
		}
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
		t.Error(st)
	}
}

func TestHoldWaitsForIOInFlight(t *testing.T) {
	b := holding(memory(t, 1<<20))
	g, q := started(t, rig{mode: Trap, backends: []block.Backend{b}})
	data := g.alloc(1)
	cid := q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
	g.until("the request", func() bool { return b.held() == 1 })
	done := make(chan struct{})
	g.c.lock(true, func() { close(done) })
	// Pinned memory is released when the request has ended, not before.
	released := make(chan struct{})
	g.s.table.UnmapAll(func() { close(released) })
	select {
	case <-done:
		t.Error("the data path is held while a request is in flight")
	case <-released:
		t.Error("memory was released under a request")
	default:
	}
	b.release()
	g.wait("LockDataPath", done)
	g.wait("the unmap", released)
	g.mapRAM(guestBase, guestSize, 0)
	g.lock(false)
	if st := q.result(cid).Status; !st.OK() {
		t.Error(st)
	}
}

func TestDeletedQueueCompletesWhatWasFetched(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		b := holding(memory(t, 1<<20))
		b.stubborn = true // or it would be taken back if the deletion comes before the release
		r.backends = []block.Backend{b}
		g, q := started(t, r)
		data := g.alloc(1)
		cid := q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
		g.until("the request", func() bool { return b.held() == 1 })
		del := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 1})
		b.release()
		if st := g.admin.result(del).Status; !st.OK() {
			t.Error(st)
		}
		if st := q.result(cid).Status; !st.OK() {
			t.Error(st)
		}
		g.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteCQ, CDW10: 1})
	})
}

// A host that leaves no room in its completion queue waits for the deletion of the
// submission queue in vain; a reset must still be possible.
func TestResetWhileADeletionWaitsForRoom(t *testing.T) {
	b := &slowBackend{Backend: memory(t, 1<<20)}
	g, _ := started(t, rig{mode: Trap, backends: []block.Backend{b}})
	b.hold.Store(true)
	q := g.newQueue(2, 2)
	q.size = 32
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 2 | 1<<16, CDW11: 1})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 2 | 31<<16, CDW11: 1 | 2<<16})
	data := g.alloc(1)
	for range 3 {
		q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
	}
	// The first ends and takes the only room, then the others wait for it.
	g.until("the first request", func() bool { return b.held() >= 1 })
	b.release()
	g.until("its completion", func() bool { return q.posted(0) })
	g.idle = func() int { b.release(); return 0 } // a reset waits for the storage, but not for the host
	g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 2})
	g.disable()
	g.enable()
}

// posted says whether the entry was posted in the first round of the queue.
func (q *testQueue) posted(i int) bool { return q.g.bytes(q.cq+uint64(i)*16, 16)[14]&1 == 1 }
