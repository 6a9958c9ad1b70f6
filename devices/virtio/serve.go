package virtio

import (
	"context"
	"runtime/debug"

	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/engine"
)

// Handler serves one chain: it takes c.Readable, fills c.Writable from its start on, and
// returns how many bytes it has written there. The buffers are private copies, valid until
// it returns. It may block, but should return when ctx ends: the queue is being stopped.
type Handler func(ctx context.Context, c *virtqueue.Chain) (written uint32)

// Server is the goroutine of a queue that a Handler serves.
type Server struct {
	q      *Queue
	handle Handler
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// Serve has a goroutine serve a queue, one chain after the other: for a control queue, or
// for any device that need not be quick, or for a queue that is Remote. It works by message,
// which reaches memory of every kind. What the driver did to the device's registers before it
// made a chain available, such as enabling a queue, has been done when the chain is handled.
// Call Serve in StartQueue, and Stop in StopQueue; notifications then come here and not to
// Device.Notify.
func Serve(q *Queue, handle Handler) *Server {
	if !q.remote {
		q.forced = true
		q.setRemote(true)
	}
	ctx, cancel := context.WithCancel(q.h.s.Context())
	s := &Server{q: q, handle: handle, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	q.server.Store(s)
	go s.run(ctx)
	return s
}

// Stop ends the goroutine and waits for it. What the handler has been given is finished
// before.
func (s *Server) Stop() {
	s.cancel()
	<-s.done
}

// kick has it look at the queue. Any goroutine.
func (s *Server) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Server) run(ctx context.Context) {
	defer close(s.done)
	defer func() {
		if v := recover(); v != nil {
			s.q.Fault(v, debug.Stack())
		}
	}()
	debug.SetPanicOnFault(true)
	chains := make([]virtqueue.Chain, 1)
	for ctx.Err() == nil && s.q.Enter() {
		n, err := s.q.Take(chains)
		switch {
		case err != nil:
			s.q.Fail(err)
			s.wait(ctx)
		case n > 0 && !s.q.h.caughtUp(ctx):
			s.q.Untake(n)
		case n > 0:
			s.q.Push(&chains[0], s.handle(ctx, &chains[0]))
			if s.q.Publish() {
				s.q.Interrupt()
			}
		case !s.q.Arm():
			s.wait(ctx)
		}
	}
}

func (s *Server) wait(ctx context.Context) {
	select {
	case <-s.wake:
	case <-ctx.Done():
	}
}

// guestMemory is a client's memory for a queue that works by message.
type guestMemory struct{ s *engine.Session }

func (m guestMemory) ReadDMA(iova uint64, p []byte) error { return m.s.ReadDMA(m.s.Context(), iova, p) }

func (m guestMemory) WriteDMA(iova uint64, p []byte) error {
	return m.s.WriteDMA(m.s.Context(), iova, p)
}
