package nvme

import (
	"syscall"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

func TestBusyTimeCountsWhatOverlapsOnce(t *testing.T) {
	var b busyTime
	b.load(time.Hour)
	b.begin()
	b.begin()
	b.since = b.since.Add(-2 * time.Hour)
	b.end()
	if total := b.total(); total < 3*time.Hour || total > 4*time.Hour {
		t.Errorf("while one is at work: %v", total)
	}
	b.end()
	if total := b.total(); total < 3*time.Hour || total > 4*time.Hour {
		t.Errorf("afterwards: %v", total)
	}
}

func TestWorkersThatSleepAreNotBusy(t *testing.T) {
	g, q, w := manual(t, Trap)
	data := g.alloc(1)
	g.idle = w.poll
	q.status(rw(spec.NVMWrite, 1, 0, 1, data, 0))
	busy := &g.c.smart.busy
	if busy.count != 1 {
		t.Fatalf("%d at work", busy.count)
	}
	w.arm()
	if busy.count != 0 {
		t.Errorf("%d at work while the worker sleeps", busy.count)
	}
}

type readOnly struct{ block.Backend }

func (b readOnly) Info() block.Info {
	i := b.Backend.Info()
	i.ReadOnly = true
	return i
}

func TestReadOnlyStorageIsACriticalWarning(t *testing.T) {
	for _, c := range []struct {
		backends []block.Backend
		want     uint8
	}{
		{[]block.Backend{readOnly{memory(t, 1<<20)}, readOnly{memory(t, 1<<20)}}, warnReadOnly},
		{[]block.Backend{readOnly{memory(t, 1<<20)}, memory(t, 1<<20)}, 0},
	} {
		g, page := adminGuest(t, rig{backends: c.backends})
		featureTester{g, page}.setStatus(spec.FeatWriteProtect, 2, spec.WriteProtectOn, false)
		g.must(getLog(spec.LogSmart, spec.SmartSize, 0, page))
		if w := g.bytes(page, 1)[0]; w != c.want {
			t.Errorf("critical warning %#x, want %#x", w, c.want)
		}
	}
}

// A media error is one of the medium: storage that has no room left has none.
func TestMediaErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		op   uint8
		want spec.Status
		n    uint64
	}{
		{syscall.EIO, spec.NVMRead, spec.UnrecoveredRead, 1},
		{syscall.EIO, spec.NVMWrite, spec.WriteFault, 1},
		{syscall.ENOSPC, spec.NVMWrite, spec.CapacityExceeded | spec.StatusDNR, 0},
		{block.ErrReadOnly, spec.NVMWrite, spec.NamespaceWriteProtected | spec.StatusDNR, 0},
	} {
		b := &slowBackend{Backend: memory(t, 1<<20), fail: func(*block.Request) error { return c.err }}
		g, q := started(t, rig{backends: []block.Backend{b}})
		if st := q.status(rw(c.op, 1, 0, 1, g.alloc(1), 0)); st != c.want {
			t.Errorf("%v: %v, want %v", c.err, st, c.want)
		}
		if n := g.c.smart.mediaErrors.Load(); n != c.n {
			t.Errorf("%v: %d media errors, want %d", c.err, n, c.n)
		}
	}
}
