package client

import (
	"slices"

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

// input cuts the byte stream into messages. On a unix stream the kernel ends a recvmsg at the segment that carried
// descriptors, so they belong to the message whose first byte lies in the last segment read: the
// last one that has begun so far.
type input struct {
	buf     []byte
	r, w    int // what is in buf and not yet cut
	limit   int // size of the largest message allowed, in bytes
	control []byte
	next    uint64 // number of the message that begins at r
	fds     []arrivedFD
	taken   []int // descriptors of the message cut last; reused
}

type arrivedFD struct {
	message uint64
	fd      int
}

func newInput(limit int) input {
	return input{buf: make([]byte, inputSize), limit: limit, control: make([]byte, controlSize)}
}

func (in *input) close() {
	for _, a := range in.fds {
		_ = unix.Close(a.fd)
	}
	*in = input{}
}

// fill receives once. EAGAIN says that nothing came; any other error ends the session.
func (in *input) fill(fd int, blocking bool) error {
	if err := in.makeRoom(); err != nil {
		return err
	}
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
	if ncontrol > 0 {
		in.keepFDs(in.control[:ncontrol])
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return broken(0, nil, "more than %d descriptors in a message, or none left to open here", maxFDs)
	case len(in.fds) > maxFDs:
		return broken(0, nil, "more than %d descriptors in a message", maxFDs)
	case n == 0:
		return ErrDisconnected
	}
	return nil
}

// makeRoom sees to it that buf can take the rest of the message that has begun, and something in any case.
func (in *input) makeRoom() error {
	have := in.w - in.r
	if have == 0 {
		in.r, in.w = 0, 0
		if len(in.buf) > inputSize {
			in.buf = make([]byte, inputSize)
		}
		return nil
	}
	need := codec.HeaderSize
	if have >= codec.HeaderSize {
		h, err := in.header()
		if err != nil {
			return err
		}
		need = int(h.Size)
	}
	switch {
	case need > len(in.buf):
		grown := make([]byte, need)
		in.w = copy(grown, in.buf[in.r:in.w])
		in.r, in.buf = 0, grown
	case need > len(in.buf)-in.r:
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	return nil
}

// header decodes the header at r, which must be there, and bounds the size.
func (in *input) header() (codec.Header, error) {
	h, err := codec.DecodeHeader(in.buf[in.r:in.w])
	if err != nil {
		return h, broken(h.Command, err, "bad header")
	}
	if int64(h.Size) > int64(in.limit) {
		return h, broken(h.Command, nil, "message of %d bytes, at most %d are allowed", h.Size, in.limit)
	}
	return h, nil
}

// keepFDs takes the descriptors of one receive.
func (in *input) keepFDs(control []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return
	}
	owner := in.next + in.begun() - 1
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			in.fds = append(in.fds, arrivedFD{owner, fd})
		}
	}
}

// begun counts the messages of which at least one byte is here.
func (in *input) begun() (n uint64) {
	for data := in.buf[in.r:in.w]; len(data) > 0; {
		n++
		h, err := codec.DecodeHeader(data)
		if err != nil || uint64(h.Size) >= uint64(len(data)) {
			break
		}
		data = data[h.Size:]
	}
	return n
}

// cut takes the next whole message; false when there is none.
func (in *input) cut(m *message) (ok bool, err error) {
	*m = message{}
	if in.w-in.r < codec.HeaderSize {
		return false, nil
	}
	if m.Header, err = in.header(); err != nil || int(m.Size) > in.w-in.r {
		return false, err
	}
	m.payload = in.buf[in.r+codec.HeaderSize : in.r+int(m.Size) : in.r+int(m.Size)]
	if len(in.fds) > 0 {
		in.taken = in.taken[:0]
		for len(in.fds) > 0 && in.fds[0].message == in.next {
			in.taken = append(in.taken, in.fds[0].fd)
			in.fds = slices.Delete(in.fds, 0, 1)
		}
		m.fds = in.taken
	}
	in.r += int(m.Size)
	in.next++
	return true, nil
}

// drop closes the descriptors that nobody took.
func (m *message) drop() { reactor.CloseFDs(m.fds) }
