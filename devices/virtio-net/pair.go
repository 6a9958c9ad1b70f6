package virtionet

import (
	"context"
	"runtime/debug"
	"sync/atomic"

	"vfiouser/devices/virtio"
	"vfiouser/engine"
)

// pair is a receive and a transmit queue: an engine.Source. If guest memory is reached by
// message a goroutine of its own takes the worker's place.
type pair struct {
	card   *card
	index  int
	tx     transmitter
	rx     receiver
	steers atomic.Bool // what is sent says where the answers go

	runner atomic.Pointer[runner] // who polls the pair now
	woken  atomic.Bool            // there may be something that the last Poll has not seen
	gone   bool                   // a fault: do nothing any more; the runner's

	// The control goroutine's.
	s      *virtio.Session
	worker *engine.Worker
}

// runner is who polls a pair: a worker, or a goroutine.
type runner struct {
	worker *engine.Worker
	kicked chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// wake has the pair polled soon. Any goroutine, with whatever locks.
func (p *pair) wake() {
	p.woken.Store(true) // a worker that is about to sleep finds it in Arm
	if r := p.runner.Load(); r == nil {
		return
	} else if r.worker != nil {
		r.worker.Wake()
	} else {
		r.notify()
	}
}

// kick is wake for the reactor, where the pair may be polled at once.
func (p *pair) kick() {
	if r := p.runner.Load(); r == nil {
		return
	} else if r.worker != nil {
		r.worker.Kick(p)
	} else {
		r.notify()
	}
}

func (r *runner) notify() {
	select {
	case r.kicked <- struct{}{}:
	default:
	}
}

// pause returns when nobody polls the pair. The control goroutine then owns it.
func (p *pair) pause() {
	r := p.runner.Swap(nil)
	switch {
	case r == nil:
	case r.worker != nil:
		r.worker.Detach(p)
	default:
		r.cancel()
		<-r.done
	}
}

// resume has the pair polled, if one of its queues is started.
func (p *pair) resume() {
	if p.tx.q == nil && p.rx.q == nil {
		return
	}
	p.gone = false
	byMessage := p.tx.q != nil && p.tx.q.Remote() || p.rx.q != nil && p.rx.q.Remote()
	p.rx.place(byMessage)
	if !byMessage {
		if p.worker == nil {
			p.worker = p.s.Engine().PickWorker()
		}
		p.runner.Store(&runner{worker: p.worker})
		p.worker.Attach(p, p.s.Polling())
		return
	}
	ctx, cancel := context.WithCancel(p.s.Context())
	r := &runner{kicked: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	p.runner.Store(r)
	go p.run(ctx, r)
}

// Poll sends a batch, and has the link deliver one.
func (p *pair) Poll() int {
	if p.gone {
		return 0
	}
	if p.woken.Load() {
		p.woken.Store(false)
	}
	n := p.tx.poll()
	if p.rx.starved.Load() {
		n += p.rx.refill()
	}
	return n + p.card.port.Poll(p.index)
}

// Arm asks to be woken for what Poll does. Receive buffers were asked for when there were too
// few, but a notification of them means nothing to a worker that is awake: look again.
func (p *pair) Arm() bool {
	if p.gone {
		return false
	}
	pending := p.tx.arm()
	if p.rx.starved.Load() {
		pending = p.rx.refill() > 0 || pending
	}
	return p.card.port.Arm(p.index) || pending || p.woken.Load()
}

// Disarm tells the driver that nothing has to be told.
func (p *pair) Disarm() {
	if !p.gone {
		p.tx.disarm()
	}
}

// Fault ends the session: guest memory was truncated, or there is a defect.
func (p *pair) Fault(v any, stack []byte) {
	p.gone = true
	if p.tx.q != nil {
		p.tx.q.Fault(v, stack)
	} else {
		p.rx.q.Fault(v, stack)
	}
}

// run polls the pair by message, on a goroutine, until ctx ends.
func (p *pair) run(ctx context.Context, r *runner) {
	defer close(r.done)
	defer func() {
		if v := recover(); v != nil {
			if p.rx.q != nil {
				p.rx.q.Exit()
			}
			p.Fault(v, debug.Stack())
		}
	}()
	debug.SetPanicOnFault(true)
	for ctx.Err() == nil {
		p.woken.Store(false)
		if n := p.tx.poll() + p.rx.drain() + p.card.port.Poll(p.index); n > 0 || p.Arm() {
			continue
		}
		select {
		case <-r.kicked:
		case <-ctx.Done():
		}
	}
}
