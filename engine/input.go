package engine

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

const (
	// scratchSize is the size of the buffer that all sessions of an engine receive
	// into; a message that does not end in it moves to a buffer of its own.
	scratchSize = 64 << 10
	// maxMessage is the largest message that a client may send: a REGION_WRITE of
	// max_data_xfer_size bytes, or anything as long.
	maxMessage = codec.HeaderSize + codec.RegionAccessSize + maxDataXfer
	// receiveRounds bounds how often one event makes one session read its socket, so
	// that a client that floods us leaves time for the others.
	receiveRounds = 8
)

var errFrame = errors.New("client broke the message framing")

// message is a request or a reply as it came in. Its payload is valid until the
// handler returns; descriptors that the handler does not take are closed.
type message struct {
	codec.Header
	payload []byte
	fds     []int // -1 where the handler took it
	flooded bool  // more descriptors came than were negotiated; none is left
}

// takeFD gives the only descriptor of a message to the caller, or -1.
func (m *message) takeFD() int {
	if len(m.fds) == 0 {
		return -1
	}
	fd := m.fds[0]
	m.fds[0] = -1
	return fd
}

// takeFDs gives all descriptors to the caller.
func (m *message) takeFDs() []int {
	fds := m.fds
	m.fds = nil
	return fds
}

// receiver is what the sessions of an engine share to receive, one after the other.
type receiver struct {
	scratch [scratchSize]byte
	fds     [reactor.MaxFDs]int // the kernel would close at once what does not fit
}

// input is the receiving side of one socket.
type input struct {
	codec.Cutter
	partial  *bytebufferpool.ByteBuffer // the bytes of a message that is not complete
	received uint64                     // bytes, for Inspect
	again    again
}

func (in *input) close(f *foreign) {
	f.close(in.Close()...)
	if in.partial != nil {
		bytebufferpool.Put(in.partial)
		in.partial = nil
	}
}

// read receives once and returns everything that is there of messages not cut yet.
func (in *input) read(fd int, rx *receiver, f *foreign) (data []byte, err error) {
	buf, have := rx.scratch[:], 0
	if in.partial != nil {
		have = len(in.partial.B)
		in.partial.B = slices.Grow(in.partial.B, codec.Missing(in.partial.B))
		buf = in.partial.B[:cap(in.partial.B)]
	}
	n, nfds, err := reactor.RecvMsg(fd, rx.fds[:], buf[have:])
	flooded := errors.Is(err, reactor.ErrTruncated)
	if err != nil && !flooded {
		return nil, err
	}
	in.received += uint64(n)
	data = buf[:have+n]
	if in.partial != nil {
		in.partial.B = data
	}
	if nfds > 0 || flooded {
		f.close(in.Arrived(data, rx.fds[:nfds], flooded, maxMsgFDs)...)
	}
	return data, nil
}

// cut takes the next whole message off data; ok is false when there is none. With an
// error, which means that the stream is out of step, m holds the header alone.
func (in *input) cut(data []byte, m *message) (rest []byte, ok bool, err error) {
	*m = message{}
	h, size, err := in.Cut(data, maxMessage)
	m.Header = h
	switch {
	case err != nil:
		return data, false, fmt.Errorf("%w: header %+v: %w", errFrame, h, err)
	case size == 0:
		return data, false, nil
	}
	m.payload = data[codec.HeaderSize:size:size]
	m.fds, m.flooded = in.FDs()
	return data[size:], true, nil
}

// keep stores what is left of data, the beginning of a message, until more comes.
func (in *input) keep(rest []byte) {
	switch {
	case len(rest) == 0 && in.partial != nil:
		bytebufferpool.Put(in.partial)
		in.partial = nil
	case len(rest) > 0 && in.partial == nil:
		in.partial = bytebufferpool.Get()
		in.partial.B = append(in.partial.B[:0], rest...)
	case len(rest) > 0:
		in.partial.B = in.partial.B[:copy(in.partial.B, rest)]
	}
}

// again decides whether to look at a socket once more after an answer. A client on the
// same core may have run in between and sent its next command already, which saves a
// turn of the poller; but most do not, and then it costs a system call for nothing.
type again struct {
	vain int // looks left out after the last one in vain
	skip int // looks still to be left out
}

// maxVain is how many looks are left out at most before the next attempt.
const maxVain = 63

// look says whether to look.
func (a *again) look() bool {
	if a.skip > 0 {
		a.skip--
		return false
	}
	return true
}

// found takes down whether a look found something.
func (a *again) found(some bool) {
	if some {
		a.vain = 0
		return
	}
	a.vain = min(2*a.vain+1, maxVain)
	a.skip = a.vain
}

// receive reads the socket while there is something, up to a bound, and serves it.
func (s *Session) receive() {
	for round := range receiveRounds {
		if s.state == stateDropped || s.backlog.full() || s.backlog.resuming {
			return
		}
		if round > 0 && !s.in.again.look() {
			return
		}
		data, err := s.in.read(s.fd, &s.engine.rx, &s.ep.foreign)
		if round > 0 {
			s.in.again.found(err == nil)
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, io.EOF):
			s.drop(errHungUp)
			return
		case err != nil:
			s.drop(err)
			return
		}
		if !s.consume(data) {
			return
		}
		s.flush()
	}
}

// refuseFrame ends a session whose stream is out of step; a client that still
// listens is told.
func (s *Session) refuseFrame(h codec.Header, err error) {
	if !h.IsReply() {
		s.reply(s.out.begin(), h, err)
		s.flush()
	}
	s.drop(err)
}

// consume serves the whole messages in data and keeps the rest; false if the
// session has ended meanwhile.
func (s *Session) consume(data []byte) bool {
	m := &s.current
	for {
		rest, ok, err := s.in.cut(data, m)
		if err != nil {
			s.refuseFrame(m.Header, err)
			return false
		}
		if !ok {
			s.in.keep(rest)
			return true
		}
		s.accept(m)
		s.ep.foreign.close(m.fds...)
		if s.state == stateDropped {
			return false
		}
		data = rest
	}
}
