package engine

import (
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Source is what a worker polls: the queues that one device gave to one worker.
// The worker never calls a source from two goroutines at once, and none of the
// methods may block.
type Source interface {
	// Poll does at most one bounded batch of work and returns the number of
	// operations that it did; 0 means that there was nothing to do.
	Poll() int
	// Arm is called before the worker sleeps. It asks for a notification of the
	// next piece of work (moves an event index, enables a doorbell) and then looks
	// once more; it returns true if work is there already.
	Arm() (pending bool)
	// Disarm is called when the worker is awake again and polls.
	Disarm()
	// Fault is called when Poll, Arm or Disarm panicked, be it that guest memory
	// was truncated under it (see dma.IsFault) or by a defect. The source leaves its
	// read sections and fails its session; it is polled again until it is detached,
	// and must do nothing then.
	Fault(v any, stack []byte)
}

// SourceOptions says how a source is to be polled.
type SourceOptions struct {
	// Silent marks a source of which no notification ever comes, because its
	// doorbells are shared memory. Instead of sleeping until it is woken, its worker
	// looks again after pauses that grow to MaxSleep.
	Silent bool
	// MaxSleep bounds the pause between two looks at a silent source.
	// 0 means DefaultMaxSleep.
	MaxSleep time.Duration
}

// DefaultMaxSleep is the longest pause between two looks at an idle silent source.
const DefaultMaxSleep = time.Millisecond

// The states of a worker. Whoever moves it out of stateAsleep owns its sources.
const (
	stateAwake    = iota // the worker's goroutine polls
	stateArming          // it is about to sleep and arms its sources
	stateAsleep          // it sleeps; nobody is in a source
	stateBorrowed        // another goroutine polls one source in its place (Kick)
)

const (
	kickRounds   = 4                     // batches that a kick serves before it wakes the worker
	firstPause   = 20 * time.Microsecond // first pause of a worker with silent sources
	idleRounds   = 32                    // empty rounds between two looks at the clock
	spinRange    = 8                     // the spin time may shrink and grow by this factor
	shortSleep   = 4                     // a sleep of fewer configured spin times should have been a spin
	detachPause  = 10 * time.Microsecond
	foreverSleep = time.Duration(-1)
)

// A Worker is a goroutine that polls the sources attached to it. It spins while
// there is work, and sleeps on an eventfd when there has been none for a while.
// All methods may be called from any goroutine, with the exceptions that they name.
type Worker struct {
	state atomic.Uint32
	round atomic.Uint64                // counts rounds; a new one begins with a look at list
	list  atomic.Pointer[[]attachment] // sources; replaced as a whole
	wake  wakeup
	spin  time.Duration // configured time without work before it sleeps
	cpu   int           // CPU that it is pinned to, or -1
	// lastKick is the time of the last kick that was served; only its borrower uses it.
	lastKick time.Time

	mu      sync.Mutex // attach, detach, start, stop
	started bool
	stop    atomic.Bool
	done    chan struct{}
}

type attachment struct {
	src Source
	opt SourceOptions
}

func newWorker(spin time.Duration, cpu int) (*Worker, error) {
	w := &Worker{spin: spin, cpu: cpu, done: make(chan struct{})}
	w.list.Store(new([]attachment))
	return w, w.wake.open()
}

// Attach gives a source to the worker, which begins to poll it at once.
func (w *Worker) Attach(src Source, opt SourceOptions) {
	if opt.MaxSleep <= 0 {
		opt.MaxSleep = DefaultMaxSleep
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	list := append(slices.Clone(*w.list.Load()), attachment{src, opt})
	w.list.Store(&list)
	if !w.started && !w.stop.Load() {
		w.started = true
		go w.run()
	}
	w.wake.signal()
}

// Detach takes a source away. When it returns no call into the source is running,
// and none will come. It must not be called from the source's own methods nor from
// the reactor: it waits for the round that is being polled.
func (w *Worker) Detach(src Source) {
	w.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(*w.list.Load()), func(a attachment) bool { return a.src == src })
	w.list.Store(&list)
	running := w.started
	w.mu.Unlock()
	if !running {
		return
	}
	// Every round begins with a look at the list, so the source is free as soon as
	// a round began after the store above, or nobody polls at all.
	for round := w.round.Load(); w.round.Load() == round; {
		if s := w.state.Load(); s == stateAsleep {
			return
		}
		select {
		case <-w.done:
			return
		default:
			time.Sleep(detachPause)
		}
	}
}

// Wake makes the worker look at its sources. It costs a load while it is awake.
func (w *Worker) Wake() {
	if w.state.Load() != stateAwake {
		w.wake.signal()
	}
}

// Kick is Wake for a caller that may serve the source itself, which is quicker than
// to wake a thread: if the worker sleeps, the source is polled here, for a few
// batches. It is meant for the reactor when a doorbell was trapped. If kicks come so
// fast that a spinning worker would have seen them by itself, the worker is woken
// as well, so that it spins from then on.
func (w *Worker) Kick(src Source) {
	if !w.state.CompareAndSwap(stateAsleep, stateBorrowed) {
		w.Wake()
		return
	}
	if !slices.ContainsFunc(*w.list.Load(), func(a attachment) bool { return a.src == src }) {
		w.state.Store(stateAsleep)
		return
	}
	busy := w.serve(src)
	now := time.Now()
	busy = busy || now.Sub(w.lastKick) < w.spin
	w.lastKick = now
	w.round.Add(1)
	w.state.Store(stateAsleep)
	if busy {
		w.wake.signal()
	}
}

// serve polls one source in the place of a sleeping worker and says whether more
// work was left than is reasonable to do here.
func (w *Worker) serve(src Source) (busy bool) {
	defer contain(src)
	src.Disarm()
	for range kickRounds {
		if src.Poll() == 0 {
			break
		}
	}
	return src.Arm()
}

func (w *Worker) run() {
	defer close(w.done)
	if w.cpu >= 0 {
		runtime.LockOSThread() // the goroutine ends with the thread: its affinity must not leak
		var set unix.CPUSet
		set.Set(w.cpu)
		_ = unix.SchedSetaffinity(0, &set) // a CPU that is not there leaves it unpinned
	}
	debug.SetPanicOnFault(true)
	idle := idler{worker: w, spin: w.spin}
	for !w.stop.Load() {
		w.round.Add(1)
		list := *w.list.Load()
		n := 0
		for i := range list {
			n += poll(list[i].src)
		}
		if n > 0 {
			idle.reset()
			continue
		}
		idle.empty(list)
	}
}

// poll is one call of a source's Poll that survives a fault.
func poll(src Source) int {
	defer contain(src)
	return src.Poll()
}

// contain turns a panic inside a source into a call of its Fault method.
func contain(src Source) {
	if v := recover(); v != nil {
		src.Fault(v, debug.Stack())
	}
}

// close ends the worker and waits. Its sources should be detached before.
func (w *Worker) close() {
	w.mu.Lock()
	first := !w.stop.Swap(true)
	started := w.started
	w.mu.Unlock()
	if started {
		w.wake.signal()
		<-w.done
	}
	if first {
		w.wake.close()
	}
}
