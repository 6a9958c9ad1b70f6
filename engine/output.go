package engine

import (
	"errors"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// maxUnsent is how much a client may leave unread before its commands wait.
const maxUnsent = 4 << 20

// output collects what is to be sent to a client. Everything that piles up while
// one event is served leaves with one sendmsg; a message with descriptors has one
// of its own, since descriptors travel with the first byte of a sendmsg.
type output struct {
	buf   *bytebufferpool.ByteBuffer // nil while nothing waits
	sent  int                        // bytes of buf that are gone
	marks []mark                     // messages with descriptors, in order
	timer *reactor.Timer             // runs while the client does not read
}

// mark is where a message with descriptors begins and ends in output.buf. The
// descriptors stay the device's.
type mark struct {
	begin, end int
	fds        []int
}

func (o *output) unsent() int {
	if o.buf == nil {
		return 0
	}
	return len(o.buf.B) - o.sent
}

// bytes is where messages are appended; every change is stored back with set.
func (o *output) bytes() []byte {
	if o.buf == nil {
		o.buf = bytebufferpool.Get()
		o.sent = 0
	}
	return o.buf.B
}

func (o *output) set(b []byte) { o.buf.B = b }

func (o *output) release() {
	if o.buf != nil {
		bytebufferpool.Put(o.buf)
		o.buf = nil
	}
	o.sent = 0
	o.marks = o.marks[:0]
}

func (o *output) close() {
	o.release()
	if o.timer != nil {
		o.timer.Stop()
	}
}

// next is the part that goes into the next sendmsg.
func (o *output) next() (part []byte, fds []int) {
	part = o.buf.B[o.sent:]
	if len(o.marks) == 0 {
		return part, nil
	}
	switch m := o.marks[0]; {
	case o.sent < m.begin:
		return o.buf.B[o.sent:m.begin], nil
	case o.sent == m.begin:
		return o.buf.B[m.begin:m.end], m.fds
	default: // its descriptors are gone with its first bytes
		return o.buf.B[o.sent:m.end], nil
	}
}

// send sends until everything is gone or the socket is full.
func (o *output) send(fd int) error {
	for o.unsent() > 0 {
		part, fds := o.next()
		n, err := reactor.SendMsg(fd, fds, part)
		if err != nil {
			return err
		}
		o.sent += n
		if len(o.marks) > 0 && o.sent >= o.marks[0].end {
			o.marks = append(o.marks[:0], o.marks[1:]...)
		}
	}
	o.release()
	return nil
}

// flush sends what waits. If the client does not read, the rest goes when the
// socket is writable again, or the client is dropped after a while.
func (s *Session) flush() {
	if s.state == stateDropped || s.out.buf == nil {
		return
	}
	before := s.out.unsent()
	err := s.out.send(s.fd)
	switch {
	case err == nil:
		s.unblock()
	case errors.Is(err, unix.EAGAIN):
		s.block(s.out.unsent() < before)
	default:
		s.drop(errHungUp)
	}
}

// block waits for the client to read.
func (s *Session) block(progress bool) {
	limit := s.engine.cfg.WriteTimeout
	switch {
	case s.out.timer == nil:
		s.out.timer = s.engine.reactor.AfterFunc(limit, func() { s.drop(errUnread) })
	case progress:
		s.out.timer.Reset(limit)
	}
	s.watch()
}

// unblock is called when everything was sent.
func (s *Session) unblock() {
	if s.out.timer != nil {
		s.out.timer.Stop()
		s.out.timer = nil
	}
	s.watch()
	s.backlog.run()
}

// watch asks the poller for what the session can make use of now.
func (s *Session) watch() {
	var want reactor.Events
	if !s.backlog.full() {
		want |= reactor.Readable
	}
	if s.out.unsent() > 0 {
		want |= reactor.Writable
	}
	if s.state != stateDropped {
		if err := s.poll.Modify(want); err != nil {
			s.drop(err)
		}
	}
}

// begin reserves the header of a message and returns where it starts.
func (o *output) begin() (start int) {
	b := o.bytes()
	o.set(append(b, make([]byte, codec.HeaderSize)...))
	return len(b)
}

// commit completes the message that starts at start with its header. A reply to a
// command that wants none is taken back.
func (o *output) commit(start int, h codec.Header) {
	b := o.buf.B
	h.Size = uint32(len(b) - start)
	h.Put(b[start:])
}

// reply completes the reply to a command whose payload the handler appended, or
// makes it an error reply, which is the header alone.
func (s *Session) reply(start int, h codec.Header, err error) {
	o := &s.out
	switch {
	case h.NoReply():
		o.set(o.buf.B[:start])
		return
	case err != nil:
		o.set(o.buf.B[:start+codec.HeaderSize])
		o.commit(start, codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply | codec.FlagError, Errno: uint32(errno(err))})
	default:
		o.commit(start, codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply})
	}
}

// errno is what goes into an error reply.
func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return unix.EIO
}

// attach gives descriptors to the message that starts at start and is complete.
func (o *output) attach(start int, fds []int) {
	o.marks = append(o.marks, mark{start, len(o.buf.B), fds})
}
