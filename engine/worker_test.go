package engine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

// fakeQueue is a source whose work is a counter that others raise. It fails the test
// when two goroutines are in it at once.
type fakeQueue struct {
	t      testing.TB
	posted atomic.Int64 // work, raised by producers
	done   atomic.Int64 // work that was polled
	asked  atomic.Bool  // a notification is wanted (armed)
	inside atomic.Int32
	calls  atomic.Int64 // of any method
	polled atomic.Int64 // calls of Poll
	boom   func()       // called by Poll
	faults atomic.Int64
}

func (q *fakeQueue) enter() func() {
	q.calls.Add(1)
	if q.inside.Add(1) != 1 {
		q.t.Error("two goroutines are in a source at once")
	}
	return func() { q.inside.Add(-1) }
}

func (q *fakeQueue) Poll() int {
	defer q.enter()()
	q.polled.Add(1)
	if q.boom != nil {
		q.boom()
	}
	n := min(q.posted.Load()-q.done.Load(), 4)
	q.done.Add(n)
	return int(n)
}

func (q *fakeQueue) Arm() bool {
	defer q.enter()()
	q.asked.Store(true)
	return q.posted.Load() != q.done.Load()
}

func (q *fakeQueue) Disarm() {
	defer q.enter()()
	q.asked.Store(false)
}

func (q *fakeQueue) Fault(any, []byte) { q.faults.Add(1) }

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func newTestWorker(t testing.TB) *Worker {
	t.Helper()
	w, err := newWorker(50*time.Microsecond, -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func asleep(w *Worker) func() bool { return func() bool { return w.state.Load() == stateAsleep } }

func TestWorkerSleepsWithoutWorkAndWakesForIt(t *testing.T) {
	w, q := newTestWorker(t), &fakeQueue{t: t}
	w.Attach(q, SourceOptions{})
	for round := range int64(100) {
		eventually(t, "sleep", asleep(w))
		if !q.asked.Load() {
			t.Fatal("the worker sleeps and has not asked for a notification")
		}
		q.posted.Add(10)
		w.Wake()
		eventually(t, "work done", func() bool { return q.done.Load() == 10*(round+1) })
	}
}

// Producers notify only when the source asked for it, as drivers do with an event
// index: a lost wake-up would leave work behind.
func TestWorkerNeverLosesANotification(t *testing.T) {
	for _, c := range []struct {
		name   string
		notify func(*Worker, *fakeQueue)
	}{
		{"Wake", func(w *Worker, _ *fakeQueue) { w.Wake() }},
		{"Kick", func(w *Worker, q *fakeQueue) { w.Kick(q) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, q := newTestWorker(t), &fakeQueue{t: t}
			w.Attach(q, SourceOptions{})
			var mu sync.Mutex // a kick comes from one goroutine, the reactor
			var wg sync.WaitGroup
			const producers, each = 4, 2000
			for range producers {
				wg.Go(func() {
					for i := range each {
						q.posted.Add(1)
						if q.asked.Load() {
							mu.Lock()
							c.notify(w, q)
							mu.Unlock()
						}
						if i%64 == 0 {
							time.Sleep(100 * time.Microsecond) // lets the worker go to sleep now and then
						}
					}
				})
			}
			wg.Wait()
			eventually(t, "all work done", func() bool { return q.done.Load() == producers*each })
		})
	}
}

func TestWorkerPollsSilentSourcesByItself(t *testing.T) {
	w, q := newTestWorker(t), &fakeQueue{t: t}
	w.Attach(q, SourceOptions{Silent: true, MaxSleep: 200 * time.Microsecond})
	for round := range int64(20) {
		eventually(t, "sleep", asleep(w))
		q.posted.Add(1) // nobody is told
		eventually(t, "work done", func() bool { return q.done.Load() == round+1 })
	}
}

func TestDetachedSourceIsNeverPolledAgain(t *testing.T) {
	w := newTestWorker(t)
	other := &fakeQueue{t: t}
	w.Attach(other, SourceOptions{Silent: true, MaxSleep: time.Microsecond})
	for range 50 {
		q := &fakeQueue{t: t}
		w.Attach(q, SourceOptions{})
		q.posted.Add(1)
		w.Wake()
		eventually(t, "polled", func() bool { return q.done.Load() == 1 })
		w.Detach(q)
		n := q.polled.Load()
		q.posted.Add(1)
		w.Wake()
		w.Kick(q)
		before := other.polled.Load()
		eventually(t, "more rounds", func() bool { return other.polled.Load() > before+10 })
		if q.polled.Load() != n {
			t.Fatal("polled after Detach")
		}
	}
}

// Detach does not wake a worker that sleeps, so the worker has to notice by itself.
func TestSourceThatIsDetachedFromASleepingWorkerIsNotCalled(t *testing.T) {
	w, q, other := newTestWorker(t), &fakeQueue{t: t}, &fakeQueue{t: t}
	w.Attach(q, SourceOptions{})
	w.Attach(other, SourceOptions{})
	for range 100 {
		eventually(t, "sleep", asleep(w))
		w.Detach(q)
		calls, polled := q.calls.Load(), other.polled.Load()
		w.Wake()
		eventually(t, "another round", func() bool { return other.polled.Load() > polled+1 })
		if q.calls.Load() != calls {
			t.Fatal("the source was called after Detach")
		}
		w.Attach(q, SourceOptions{})
	}
}

func TestKickServesASleepingWorkersSourceInPlace(t *testing.T) {
	w, q := newTestWorker(t), &fakeQueue{t: t}
	w.Attach(q, SourceOptions{})
	eventually(t, "sleep", asleep(w))
	time.Sleep(2 * time.Millisecond) // beyond the spin time: the kick is a lone one
	q.posted.Add(3)
	w.Kick(q)
	if q.done.Load() != 3 {
		t.Fatal("the work is not done when Kick returns")
	}
	if !q.asked.Load() {
		t.Fatal("the source is not armed again")
	}
}

func TestWorkerSurvivesAFaultingSource(t *testing.T) {
	w := newTestWorker(t)
	healthy := &fakeQueue{t: t}
	w.Attach(healthy, SourceOptions{})
	page := mmapBeyondEOF(t)
	for _, c := range []struct {
		name string
		boom func()
	}{
		{"memory fault", func() { page[0]++ }},
		{"panic", func() { panic("defect") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := &fakeQueue{t: t, boom: c.boom}
			w.Attach(bad, SourceOptions{})
			w.Wake()
			eventually(t, "fault reported", func() bool { return bad.faults.Load() > 0 })
			w.Detach(bad)
			want := healthy.posted.Add(1)
			w.Wake()
			eventually(t, "healthy source served", func() bool { return healthy.done.Load() == want })
		})
	}
}

// mmapBeyondEOF is memory that faults when it is touched: its file is empty.
func mmapBeyondEOF(t *testing.T) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("empty", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func TestMemoryFaultIsRecognised(t *testing.T) {
	w := newTestWorker(t)
	page := mmapBeyondEOF(t)
	got := make(chan any, 1)
	w.Attach(faultSource{page, got}, SourceOptions{})
	if _, ok := dma.IsFault(<-got); !ok {
		t.Error("the fault of a truncated file is not recognised")
	}
}

type faultSource struct {
	page []byte
	got  chan any
}

func (s faultSource) Poll() int { s.page[0]++; return 0 }
func (s faultSource) Arm() bool { return false }
func (s faultSource) Disarm()   {}
func (s faultSource) Fault(v any, _ []byte) {
	select {
	case s.got <- v:
	default:
	}
}
