package virtio

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"vfiouser/dma"
	"vfiouser/engine"
)

// host is the attached client: its registers, its queues, and the control goroutine that
// makes the device what the registers say. Fields without a note belong to that goroutine.
type host struct {
	f          *Function
	s          *engine.Session
	regs       *registers
	interrupts interrupts
	done       chan struct{} // closed when the control goroutine has ended
	wake       chan struct{} // capacity 1: there is a request, or the registers have changed

	mu   sync.Mutex
	mail request // under mu

	active atomic.Bool // as running, for the reactor
	// asked counts what the registers have asked for, followed is up to where that was done.
	asked, followed atomic.Uint64
	started         []atomic.Pointer[Queue] // those that the device uses
	config          configView              // reactor

	want    wanted
	epoch   uint64 // of the registers that the device is at
	running bool   // Device.Start was called
	failed  bool   // and has failed
	queues  []*Queue
	held    bool
	watch   watch
	reader  *dma.Reader

	anyMessages bool   // some memory is reached by message
	messagesGen uint64 // as of this state of the table; it has none yet in state 0
}

// request is what the control goroutine is asked to do beside following the registers.
type request struct {
	place bool // memory has changed, or a queue cannot go on as it is: see how queues work
	quit  bool
	tasks []func() // the engine's, which waits for each
}

func newHost(f *Function, s *engine.Session) *host {
	n := f.cfg.Queues
	h := &host{
		f: f, s: s, regs: newRegisters(&f.cfg), done: make(chan struct{}), wake: make(chan struct{}, 1),
		started: make([]atomic.Pointer[Queue], n), queues: make([]*Queue, n), reader: s.Memory().NewReader(),
	}
	h.config.init(f)
	h.interrupts.init(s.IRQ(), n)
	return h
}

// ask changes what is asked for. Any goroutine; it does not block.
func (h *host) ask(change func(*request)) {
	h.mu.Lock()
	change(&h.mail)
	h.mu.Unlock()
	h.signal()
}

// follow has the control goroutine follow what was written to the registers.
func (h *host) follow() {
	h.asked.Add(1)
	h.signal()
}

// caughtUp waits until what was written to the registers by now has taken effect: a driver
// that enables a queue and then sends a command about it relies on the order. False if ctx
// ends before; the control goroutine may be waiting for the caller then.
func (h *host) caughtUp(ctx context.Context) bool {
	if h.asked.Load() == h.followed.Load() {
		return true
	}
	done := make(chan struct{})
	h.ask(func(r *request) { r.tasks = append(r.tasks, func() { close(done) }) })
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// signal has the control goroutine look at the registers and at what is asked for.
func (h *host) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *host) take() request {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.mail
	h.mail = request{}
	return r
}

// run is the control goroutine.
func (h *host) run() {
	defer close(h.done)
	debug.SetPanicOnFault(true)
	for range h.wake {
		r := h.take()
		h.settle()
		if r.place {
			h.place()
		}
		// Last: once the data path is held memory may go.
		for _, task := range r.tasks {
			task()
		}
		if r.quit {
			h.leave()
			return
		}
	}
}

// guard calls the device. A panic costs the client its session, not the process.
func (h *host) guard(call func()) {
	defer func() {
		if v := recover(); v != nil {
			h.fault(v, debug.Stack())
		}
	}()
	call()
}

// leave ends what belongs to the client. Its data path is held.
func (h *host) leave() {
	h.stop()
	h.watch.stop()
	h.reader.Close()
}

// ErrMemoryGone ends a session: the client has truncated its memory, and it was touched.
var ErrMemoryGone = errors.New("virtio: guest memory has gone")

// fault ends the client after a panic.
func (h *host) fault(v any, stack []byte) {
	if addr, ok := dma.IsFault(v); ok {
		h.s.Fail(fmt.Errorf("%w (fault at %#x)", ErrMemoryGone, addr))
		return
	}
	h.s.Logger().Error("defect in a virtio device", "panic", v, "stack", string(stack))
	h.s.Fail(fmt.Errorf("virtio: panic: %v", v))
}

// needsReset tells the driver that began with epoch that the device cannot go on.
func (h *host) needsReset(epoch uint64, err error) {
	if h.regs.needsReset(epoch) {
		h.s.Logger().Warn("virtio device needs a reset", "err", err)
		h.interrupts.configChanged(func() bool {
			now, ok := h.regs.running()
			return ok && now == epoch
		})
	}
}
