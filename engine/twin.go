package engine

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// twin is the second socket of a session, for the server's commands and the client's
// replies to them (specification, "Socket", and VFIO_USER_VERSION, twin_socket). A session
// without one has both on the socket that the client connected.
type twin struct {
	session *Session
	fd      int
	poll    *reactor.FD
	in      input
	current message // the one being served
	out     output
}

// errTwinHungUp ends a session: its client cannot be asked for memory any more.
var errTwinHungUp = errors.New("client closed its twin socket")

// openTwin makes a session's twin socket and returns the client's end, or -1 if the session
// goes on without one.
func (s *Session) openTwin() int {
	var fds [2]int
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.log.Warn("no twin socket", "err", err)
		return -1
	}
	t := &twin{session: s, fd: fds[0]}
	if t.poll, err = s.engine.reactor.Add(t.fd, reactor.Readable, t); err != nil {
		s.log.Warn("no twin socket", "err", err)
		reactor.CloseFDs(fds[:])
		return -1
	}
	s.twin = t
	return fds[1]
}

// offersTwin says whether the client can have a twin socket.
func (s *Session) offersTwin(m *message, caps *codec.Capabilities) bool {
	return caps.TwinSocket != nil && caps.TwinSocket.Supported && caps.MaxMsgFDs > 0 &&
		!s.engine.cfg.NoTwinSocket && !m.NoReply()
}

// close ends the socket with its session.
func (t *twin) close() {
	if t == nil {
		return
	}
	f := &t.session.ep.foreign
	_ = t.poll.Remove()
	f.hangUp(t.fd)
	t.in.close(f)
	t.out.close()
}

// HandleEvents is called by the reactor when the socket may be read or written.
func (t *twin) HandleEvents(reactor.Events) { t.session.takeTurn(t.serve) }

func (t *twin) serve() {
	t.flush()
	t.receive()
	t.flush()
}

// receive reads the socket while there is something, up to a bound.
func (t *twin) receive() {
	s := t.session
	for range receiveRounds {
		if s.state == stateDropped || s.ep.foreign.full() {
			t.watch()
			return
		}
		data, err := t.in.read(t.fd, &s.engine.rx, &s.ep.foreign)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, io.EOF):
			cause := t.hungUp()
			if cause == errHungUp {
				s.receive() // what the client sent before
			}
			s.drop(cause)
			return
		case err != nil:
			s.drop(err)
			return
		}
		t.consume(data)
	}
}

// hungUp is why the session ends when its client has closed the socket. A client that goes closes
// both, and they may be noticed in either order.
func (t *twin) hungUp() error {
	if t.session.gone() {
		return errHungUp
	}
	return errTwinHungUp
}

// consume takes the whole replies in data and keeps the rest.
func (t *twin) consume(data []byte) {
	s, m := t.session, &t.current
	for s.state != stateDropped {
		rest, ok, err := t.in.cut(data, m)
		if err != nil {
			s.drop(err)
			return
		}
		if !ok {
			t.in.keep(rest)
			return
		}
		if m.IsReply() {
			s.calls.answer(m)
		} else {
			s.drop(fmt.Errorf("%v on the twin socket: %w", m.Command, errFrame))
		}
		s.ep.foreign.close(m.fds...)
		data = rest
	}
}

// flush sends what waits, as Session.flush does for the other socket.
func (t *twin) flush() {
	s := t.session
	if s.state == stateDropped || t.out.buf == nil {
		return
	}
	before := t.out.unsent()
	err := t.out.send(t.fd)
	switch {
	case err == nil:
		t.out.inTime()
		s.calls.pump()
	case errors.Is(err, unix.EAGAIN):
		s.limit(&t.out, t.out.unsent() < before)
	default:
		s.drop(t.hungUp())
	}
	t.watch()
}

// watch asks the poller for what can be made use of now.
func (t *twin) watch() {
	s := t.session
	if s.state == stateDropped {
		return
	}
	var want reactor.Events
	if !s.ep.foreign.full() {
		want |= reactor.Readable
	}
	if t.out.unsent() > 0 {
		want |= reactor.Writable
	}
	if err := t.poll.Modify(want); err != nil {
		s.drop(err)
	}
}
