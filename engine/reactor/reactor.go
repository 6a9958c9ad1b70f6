package reactor

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	gneterrors "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
)

// ErrClosed is returned by what cannot be done any more on a closed reactor.
var ErrClosed = errors.New("reactor: closed")

// taskBudget is how many tasks run after one descriptor event, so that a flood of posts cannot starve descriptors.
const taskBudget = 128

// Config configures a Reactor. The zero value works.
type Config struct {
	// Logger receives what nobody else is told: contained panics (unless OnPanic is set) and a failing poller.
	// Default: slog.Default().
	Logger *slog.Logger

	// Spin is for how long the loop looks for the next event before it sleeps. It saves a wake-up where the peer answers
	// from another core, and backs off where it does not help. Default: no spin.
	Spin time.Duration

	// OnPanic is called on the loop when a handler, a task or a timer function has panicked; debug.Stack still shows
	// where. h is the handler, nil for a task or a timer. The loop goes on afterwards, and a handler stays
	// registered unless OnPanic removes it. Default: log the value and the stack.
	OnPanic func(v any, h Handler)
}

// Stats counts what the loop did since New.
type Stats struct {
	Events  uint64 // descriptor events handed out, wake-ups and timer expiries included
	Stale   uint64 // events that came for a registration already removed
	Wakeups uint64 // events of the loop's own eventfd
	Tasks   uint64 // tasks run
	Timers  uint64 // timer functions run
	Sleeps  uint64 // times the loop went to sleep
	Panics  uint64 // panics contained
}

// Bits of Reactor.state. A poster writes the eventfd only if it finds neither set, and then sets signalled.
const (
	awake     uint32 = 1 << iota // the loop is between an event and its last look at the queue
	signalled                    // the eventfd was written (or is about to be) and its event has not come yet
)

// Reactor is an epoll loop on a goroutine of its own.
type Reactor struct {
	cfg    Config
	poller *netpoll.Poller
	wake   *Eventfd
	done   chan struct{}

	queue   queue
	state   atomic.Uint32
	writers atomic.Int32  // posters that may be about to write to wake
	loop    atomic.Uint64 // number of the loop's goroutine

	// Owned by the loop.
	slots    []*slot
	timers   timers
	idler    idler
	stats    Stats
	quiet    bool // the event that is being served has made no goroutine runnable
	yield    bool // let other goroutines run before the loop sleeps: an event may have made one runnable
	stopping bool
	closed   bool
}

// New opens a poller and starts its loop.
func New(cfg Config) (*Reactor, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	r := &Reactor{cfg: cfg, done: make(chan struct{})}
	r.queue.init()
	if err := r.open(); err != nil {
		r.release()
		return nil, fmt.Errorf("reactor: %w", err)
	}
	go r.run()
	return r, nil
}

func (r *Reactor) open() (err error) {
	if r.poller, err = netpoll.OpenPoller(); err != nil {
		return err
	}
	if r.wake, err = NewEventfd(); err != nil {
		return err
	}
	if err = r.timers.open(); err != nil {
		return err
	}
	r.idler = idler{epoll: epollFD(r.poller), spin: r.cfg.Spin}
	if _, err = r.Add(r.timers.fd, Readable, timerHandler{r}); err != nil {
		return err
	}
	// Edge-triggered and never read: each write is one event, and a system call is saved.
	s := r.slot(r.wake.FD())
	s.current = &FD{r: r, fd: r.wake.FD(), events: Readable, handler: wakeHandler{r}}
	return r.poller.AddRead(&s.attachment, true)
}

// release closes what the reactor itself opened.
func (r *Reactor) release() {
	if r.wake != nil {
		_ = r.wake.Close()
	}
	r.timers.close()
	if r.poller != nil {
		_ = r.poller.Close()
	}
}

func (r *Reactor) run() {
	// Deferred, so that even a handler that calls runtime.Goexit leaves a reactor that is properly closed.
	defer r.finish()
	r.loop.Store(goroutine())
	// A handler may look at guest memory, which a client can truncate: a fault must be a panic, not the end.
	debug.SetPanicOnFault(true)
	err := r.polling()
	if !errors.Is(err, gneterrors.ErrEngineShutdown) {
		r.cfg.Logger.Error("reactor: the poller failed, the loop has ended", "error", err)
	}
}

func (r *Reactor) finish() {
	r.state.Or(awake) // for good: from here on nobody begins to write the eventfd
	r.queue.close()
	for !r.queue.drained() {
		if r.runTasks(taskBudget) == 0 {
			runtime.Gosched() // a poster stands between claiming its place and filling it
		}
	}
	for r.writers.Load() != 0 {
		runtime.Gosched() // the number must not be reused under a poster that is about to write
	}
	r.closed = true
	r.release()
	close(r.done)
}

// Close runs the tasks already posted, stops the loop and waits for its end. What is still registered is
// neither removed nor closed, and its handlers are not called again. Close may be called again, from any goroutine, but
// never from the loop.
func (r *Reactor) Close() error {
	r.PostFunc(func() { r.stopping = true })
	<-r.done
	return nil
}

// Done is closed when the loop has ended.
func (r *Reactor) Done() <-chan struct{} { return r.done }

// Stats returns the counters. Loop only.
func (r *Reactor) Stats() Stats { return r.stats }

// contain reports a panic of h (nil: a task or a timer). It must be deferred directly.
func (r *Reactor) contain(h Handler) {
	v := recover()
	if v == nil {
		return
	}
	r.stats.Panics++
	if r.cfg.OnPanic != nil {
		r.cfg.OnPanic(v, h)
		return
	}
	r.cfg.Logger.Error("reactor: panic contained", "panic", v, "handler", fmt.Sprintf("%T", h), "stack", string(debug.Stack()))
}
