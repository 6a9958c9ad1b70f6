package nvme

import (
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
