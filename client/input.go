package client

import (
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

const (
	// inputSize is what is received at once; a larger message gets a buffer of its own size while it lasts.
	inputSize = 16 << 10
	// maxFDs is how many descriptors we take in one message, and what VERSION says of it.
	maxFDs = 64
)

// message is what the server sent. The payload is valid until the next receive; descriptors that
// nobody takes are closed.
type message struct {
	codec.Header
	payload []byte
	fds     []int
}

// input receives the byte stream.
type input struct {
	codec.Cutter
	buf     []byte
	r, w    int // what is in buf and not yet cut
	limit   int // size of the largest message allowed, in bytes
	control []byte
}

func newInput(limit int) input {
	return input{buf: make([]byte, inputSize), limit: limit, control: make([]byte, controlSize)}
}

func (in *input) close() {
	reactor.CloseFDs(in.Close())
	*in = input{}
}

// fill receives once. EAGAIN says that nothing came; any other error ends the session.
func (in *input) fill(fd int, blocking bool) error {
	in.makeRoom()
	n, ncontrol, flags, err := receive(fd, in.buf[in.w:], in.control, blocking)
	switch err {
	case nil:
	case unix.EAGAIN, unix.EINTR:
		return unix.EAGAIN
	case unix.ECONNRESET, unix.EPIPE:
		return ErrDisconnected
	default:
		return err
	}
	in.w += n
	whole := ncontrol == 0 || in.keepFDs(in.control[:ncontrol])
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return broken(0, nil, "more than %d descriptors in a message, or none left to open here", maxFDs)
	case !whole:
		return broken(0, nil, "more than %d descriptors in a message", maxFDs)
	case n == 0:
		return ErrDisconnected
	}
	return nil
}

// makeRoom sees to it that buf can take the rest of the message that has begun, and something in any case.
func (in *input) makeRoom() {
	have := in.w - in.r
	if have == 0 {
		in.r, in.w = 0, 0
		if len(in.buf) > inputSize {
			in.buf = make([]byte, inputSize)
		}
		return
	}
	need := have + codec.Missing(in.buf[in.r:in.w]) // bounded: cut has seen the header
	switch {
	case need > len(in.buf):
		grown := make([]byte, need)
		in.w = copy(grown, in.buf[in.r:in.w])
		in.r, in.buf = 0, grown
	case need > len(in.buf)-in.r:
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
}

// refuse tells a header that is none from a message that is too large.
func (in *input) refuse(h codec.Header, err error) error {
	if int64(h.Size) > int64(in.limit) {
		return broken(h.Command, nil, "message of %d bytes, at most %d are allowed", h.Size, in.limit)
	}
	return broken(h.Command, err, "bad header")
}

// keepFDs takes the descriptors of one receive; false if there are too many.
func (in *input) keepFDs(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return true
	}
	whole := true
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			refused := in.Arrived(in.buf[in.r:in.w], fds, false, maxFDs)
			whole = whole && refused == nil
			reactor.CloseFDs(refused)
		}
	}
	return whole
}

// cut takes the next whole message; false when there is none.
func (in *input) cut(m *message) (ok bool, err error) {
	*m = message{}
	h, size, err := in.Cut(in.buf[in.r:in.w], in.limit)
	m.Header = h
	if err != nil {
		return false, in.refuse(h, err)
	}
	if size == 0 {
		return false, nil
	}
	m.payload = in.buf[in.r+codec.HeaderSize : in.r+size : in.r+size]
	m.fds, _ = in.FDs()
	in.r += size
	return true, nil
}

// drop closes the descriptors that nobody took.
func (m *message) drop() { reactor.CloseFDs(m.fds) }
