package reactor

import (
	"container/heap"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Timer is a function to be run by the loop at a later time. Its methods are for the loop only.
type Timer struct {
	r     *Reactor
	fn    func()
	when  time.Duration // since timers.base
	index int           // in the heap; -1: not armed
}

// AfterFunc has fn run on the loop when d has passed; never, once the reactor is closed. Loop only.
func (r *Reactor) AfterFunc(d time.Duration, fn func()) *Timer {
	t := &Timer{r: r, fn: fn, index: -1}
	t.Reset(d)
	return t
}

// Stop disarms t and tells whether it was armed.
func (t *Timer) Stop() bool {
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.r.timers.heap, t.index)
	return true
}

// Reset arms t to run when d has passed from now, and tells whether it was armed. It may be called from the
// timer's own function and costs no allocation.
func (t *Timer) Reset(d time.Duration) bool {
	ts := &t.r.timers
	t.when = ts.now() + max(d, 0)
	if t.index >= 0 {
		heap.Fix(&ts.heap, t.index)
		return true
	}
	heap.Push(&ts.heap, t)
	return false
}

// timers is all timers of a reactor, on one timerfd. The descriptor is set at the end of a turn and only to an earlier
// time: a timer that was stopped or put off leaves at worst one idle wake-up.
type timers struct {
	fd    int
	base  time.Time // carries the monotonic clock, which is that of the timerfd
	heap  timerHeap
	armed time.Duration // when the descriptor will expire; 0: never
}

func (ts *timers) open() (err error) {
	ts.base = time.Now()
	ts.fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	return os.NewSyscallError("timerfd_create", err)
}

func (ts *timers) close() {
	if ts.fd > 0 {
		_ = unix.Close(ts.fd)
	}
}

func (ts *timers) now() time.Duration { return time.Since(ts.base) }

// arm makes the descriptor expire no later than the first timer.
func (ts *timers) arm() {
	if len(ts.heap) == 0 {
		return
	}
	first := ts.heap[0].when
	if ts.armed != 0 && ts.armed <= first {
		return
	}
	ts.armed = first
	// Relative, at least 1 ns (0 would disarm).
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(first-ts.now(), 1)))}
	_ = unix.TimerfdSettime(ts.fd, 0, &spec, nil) // fails only on arguments that cannot occur
}

// next takes the first timer out of the heap if it is due.
func (ts *timers) next(now time.Duration) *Timer {
	if len(ts.heap) == 0 || ts.heap[0].when > now {
		return nil
	}
	return heap.Pop(&ts.heap).(*Timer)
}

// timerHandler takes the expiries of the timerfd.
type timerHandler struct{ r *Reactor }

func (h timerHandler) HandleEvents(Events) {
	ts := &h.r.timers
	ts.armed = 0
	var expiries [8]byte
	_ = rawRead(ts.fd, expiries[:]) // so that it is not readable any more
	now := ts.now()
	for t := ts.next(now); t != nil; t = ts.next(now) {
		h.r.stats.Timers++
		t.fire()
	}
}

func (t *Timer) fire() {
	defer t.r.contain(nil)
	t.fn()
}

// timerHeap implements heap.Interface, the earliest timer first.
type timerHeap []*Timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].when < h[j].when }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	n := len(old) - 1
	t := old[n]
	old[n] = nil
	t.index = -1
	*h = old[:n]
	return t
}
