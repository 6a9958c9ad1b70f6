package engine

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/engine/reactor"
	"vfiouser/irq"
)

// Session is one client of one device, from connect to disconnect.
//
// Its methods may be called from any goroutine, except that ReadDMA and WriteDMA block and
// are not for the reactor.
type Session struct {
	ep     *Endpoint
	engine *Engine
	log    *slog.Logger
	memory *dma.Table
	irqs   *irq.Set
	ctx    context.Context // ends with the session
	cancel context.CancelCauseFunc

	fd        int
	poll      *reactor.FD
	in        input
	current   message // the one being served
	out       output
	peer      codec.Capabilities // what was negotiated, with defaults filled in
	minor     uint16             // of the version, likewise
	connected time.Time
	calls     dmaCalls
	twin      *twin // nil: the server's commands go through fd
	readers   readerPool
	path      dataPath
	migration migration
	backlog   backlog
	events    ioEvents
	state     sessionState
	turn      turn
	serving   bool // HandleEvents or takeTurn is running, and flushes at its end
	quiet     bool // nothing served in this event can have made a goroutine runnable
	// resetAsked: a function level reset was asked for through the configuration space.
	resetAsked bool
	created    bool // NewDevice was called and accepted
	released   bool // dropped, and at most descriptors are left to be closed
	silence    *reactor.Timer
}

type sessionState uint8

const (
	stateConnected  sessionState = iota // VERSION has not come yet
	stateNegotiated                     // in use
	stateDropped                        // the socket is closed, what the client gave is being released
)

// Errors that end a session; they are logged, and a device sees them in Done's cause.
var (
	errHungUp      = errors.New("client hung up")
	errSilent      = errors.New("client did not negotiate in time")
	errUnread      = errors.New("client does not read its replies")
	errUnanswered  = errors.New("client does not answer DMA messages")
	errDevicePanic = errors.New("device panicked")

	errStuckInterrupt = errors.New("client blocks its interrupt eventfd")
)

func newSession(ep *Endpoint, fd int) (*Session, error) {
	e := ep.engine
	s := &Session{
		ep: ep, engine: e, log: ep.log, fd: fd, connected: time.Now(),
	}
	s.memory = dma.NewTable(dma.Config{
		MaxMaps: maxDMAMaps, PageSize: pageSize, MaxMmaps: e.mmapShare(),
		CloseFD: func(fd int) { ep.foreign.close(fd) },
	})
	s.irqs = irq.NewSet(irq.Config{
		Counts:  ep.desc.IRQs,
		OnStuck: func() { s.Fail(errStuckInterrupt) },
		CloseFD: func(fd int) { ep.foreign.close(fd) },
	})
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.peer.Defaults()
	s.path.session = s
	s.backlog.session = s
	s.calls.session = s
	s.migration.init(s)
	var err error
	if s.poll, err = e.reactor.Add(fd, reactor.Readable, s); err != nil {
		s.cancel(err)
		return nil, err
	}
	s.takeOver()
	s.silence = e.reactor.AfterFunc(e.cfg.NegotiateTimeout, func() { s.drop(errSilent) })
	s.log.Info("client connected")
	return s, nil
}

// Memory is the client's memory: its table of DMA regions (get_mem_table).
func (s *Session) Memory() *dma.Table { return s.memory }

// IRQ is the client's interrupts: triggering a vector writes the eventfd that the
// client gave for it (get_irq).
func (s *Session) IRQ() *irq.Set { return s.irqs }

// Logger is the endpoint's logger.
func (s *Session) Logger() *slog.Logger { return s.log }

// Endpoint is where the client attached; its path identifies the device.
func (s *Session) Endpoint() *Endpoint { return s.ep }

// Engine is the engine that serves the session.
func (s *Session) Engine() *Engine { return s.engine }

// Context ends when the session does; its cause says why. It is the one to wait
// with for anything on behalf of the client.
func (s *Session) Context() context.Context { return s.ctx }

// Fail drops the client: it broke a rule that only the device can know of, or its
// memory has gone. The session ends as if the client had hung up.
func (s *Session) Fail(err error) { s.Post(func() { s.drop(err) }) }

// Post runs fn on the reactor. It must not block.
func (s *Session) Post(fn func()) { s.engine.reactor.PostFunc(func() { s.guard(fn) }) }

// gone says whether the client has closed its end, read or not.
func (s *Session) gone() bool {
	if s.state == stateDropped {
		return true
	}
	fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0
}

// HandleEvents is called by the reactor when the socket may be read or written.
func (s *Session) HandleEvents(reactor.Events) {
	if s.state == stateDropped {
		return
	}
	s.serving, s.quiet, s.turn = true, true, turn{}
	defer s.served()
	s.flush()
	s.receive()
}

// takeTurn serves the client outside of its socket's events.
func (s *Session) takeTurn(serve func()) {
	if s.state == stateDropped {
		return
	}
	s.serving, s.quiet, s.turn = true, false, turn{}
	defer s.served()
	serve()
	s.flush()
}

// served ends HandleEvents and takeTurn. A panic is the device's or ours, and costs this client.
func (s *Session) served() {
	s.serving = false
	if s.quiet {
		s.engine.reactor.Quiet()
	}
	s.contain(recover())
}

// guard runs what calls the device outside of a turn: a panic costs this client only.
func (s *Session) guard(fn func()) {
	defer func() { s.contain(recover()) }()
	fn()
}

func (s *Session) contain(v any) {
	if v != nil {
		s.log.Error("panic while serving a client", "panic", v, "stack", string(debug.Stack()))
		s.drop(errDevicePanic)
	}
}

// drop ends the session. What follows is asynchronous: the data path is held, the
// device is told, memory and eventfds are released, and then the endpoint is free.
func (s *Session) drop(cause error) {
	if s.state == stateDropped {
		return
	}
	s.state = stateDropped
	level := slog.LevelInfo
	if !errors.Is(cause, errHungUp) && !errors.Is(cause, ErrClosed) {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "session ends", "cause", cause)
	s.silence.Stop()
	s.poll.Remove()
	s.ep.foreign.hangUp(s.fd)
	s.in.close(&s.ep.foreign)
	s.out.close()
	s.twin.close()
	s.backlog.close()
	s.events.close()
	s.cancel(cause)
	s.calls.close(cause)
	s.migration.end(func(broken bool) {
		s.path.hold(func() {
			if broken {
				s.guard(s.powerOn)
			}
			// Posted, so that what was begun with StartReadDMA and not yet run ends before.
			s.Post(s.destroy)
		})
	})
}

// destroy follows drop when nothing of the data path runs any more.
func (s *Session) destroy() {
	if s.created {
		s.guard(func() { s.ep.device.DestroyDevice(s) })
	}
	s.irqs.Close()
	// The kernel takes its time to unmap a large guest.
	go s.memory.Close(func() {
		s.Post(func() {
			s.released = true
			s.ep.settle()
		})
	})
}
