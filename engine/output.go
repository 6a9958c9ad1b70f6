package engine

import (
	"errors"
	"slices"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// maxUnsent is how much a client may leave unread before its commands wait.
const maxUnsent = 4 << 20

// wholeSize is what one sendmsg on a unix stream socket sends whole or not at all,
// whatever the state of the socket: the kernel puts it into one buffer. QEMU relies on
// it twice: it takes a header that arrives in two parts for a broken stream, and it
// loses the rest of a message of its own that its socket takes in part.
const wholeSize = 32<<10 + 512

// output collects what is to be sent to a client. Everything that piles up while
// one event is served leaves with one sendmsg, as long as that sends it whole. A
// larger message has a sendmsg of its own, so that no header is ever cut; and so has
// one with descriptors, since they travel with the first byte of a sendmsg.
type output struct {
	buf   *bytebufferpool.ByteBuffer // nil while nothing waits
	sent  int                        // bytes of buf that are gone
	cut   int                        // end of the part that went out last, maybe not whole
	marks []mark                     // messages with descriptors, in order
	timer *reactor.Timer             // runs while the client does not read
	gone  uint64                     // bytes sent from the beginning, for Inspect
}

// mark is where a message with descriptors begins in output.buf.
type mark struct {
	begin int
	fds   []int
	ours  bool // to be closed when they are sent; otherwise they stay the device's
}

func (m *mark) close() {
	if m.ours {
		reactor.CloseFDs(m.fds)
	}
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
	}
	return o.buf.B
}

func (o *output) set(b []byte) { o.buf.B = b }

func (o *output) release() {
	if o.buf != nil {
		bytebufferpool.Put(o.buf)
		o.buf = nil
	}
	o.sent, o.cut = 0, 0
	for i := range o.marks {
		o.marks[i].close()
	}
	o.marks = o.marks[:0]
}

func (o *output) close() {
	o.release()
	if o.timer != nil {
		o.timer.Stop()
	}
}

// next is the part that goes into the next sendmsg: the rest of a message that was
// sent in part, or whole messages.
func (o *output) next() (part []byte, fds []int) {
	unsent := o.buf.B[o.sent:]
	if o.sent < o.cut {
		return unsent[:o.cut-o.sent], nil
	}
	n := 0
	for n < len(unsent) {
		h, _ := codec.DecodeHeader(unsent[n:]) // our own
		special := len(o.marks) > 0 && o.marks[0].begin == o.sent+n
		if n > 0 && (special || n+int(h.Size) > wholeSize) {
			break
		}
		n += int(h.Size)
		if special {
			return unsent[:n], o.marks[0].fds
		}
	}
	return unsent[:n], nil
}

// send sends until everything is gone or the socket is full.
func (o *output) send(fd int) error {
	for o.unsent() > 0 {
		part, fds := o.next()
		n, err := reactor.SendMsg(fd, fds, part)
		if err != nil {
			return err
		}
		o.cut = o.sent + len(part)
		o.sent += n
		o.gone += uint64(n)
		if fds != nil {
			o.marks[0].close()
			o.marks = slices.Delete(o.marks, 0, 1)
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
		s.limit(&s.out, s.out.unsent() < before)
		s.watch()
	default:
		s.drop(errHungUp)
	}
}

// limit bounds the time that the client has to read.
func (s *Session) limit(o *output, progress bool) {
	limit := s.engine.cfg.WriteTimeout
	switch {
	case o.timer == nil:
		o.timer = s.engine.reactor.AfterFunc(limit, func() { s.drop(errUnread) })
	case progress:
		o.timer.Reset(limit)
	}
}

// inTime ends the limit: the client has read everything.
func (o *output) inTime() {
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}

// unblock is called when everything was sent.
func (s *Session) unblock() {
	s.out.inTime()
	s.calls.pump()
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

// attach gives descriptors to the message that starts at start.
func (o *output) attach(start int, fds []int) {
	o.marks = append(o.marks, mark{begin: start, fds: fds})
}

// give is attach for a descriptor that the client alone is to have.
func (o *output) give(start, fd int) {
	o.marks = append(o.marks, mark{begin: start, fds: []int{fd}, ours: true})
}
