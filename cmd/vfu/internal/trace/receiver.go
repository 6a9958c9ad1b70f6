package trace

import (
	"bytes"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// receiver takes bytes from a stream such that descriptors come with the first of them, as
// they were sent. The kernel ends a read behind the bytes that were sent with descriptors,
// but does not say where these began. Messages begin there, so at the beginning of each,
// if there are descriptors ahead at all, a byte is read by itself.
type receiver struct {
	stream  stream
	frames  frames
	control []byte
	held    segment // comes next
}

// maxSearched is how much of the inside of a message is searched byte by byte for
// descriptors; those further inside come earlier than they were sent. No known
// implementation sends descriptors there.
const maxSearched = 4 << 10

// receive waits for bytes. Errors: io.EOF, errDescriptors, errnos.
func (r *receiver) receive(buf []byte) (n int, fds []int, err error) {
	if len(r.held.bytes) > 0 {
		n, fds = copy(buf, r.held.bytes), r.held.fds
		r.held = segment{bytes: r.held.bytes[n:]}
		return n, fds, nil
	}
	n, attached, err := r.stream.peek(buf)
	if err != nil {
		return 0, nil, err
	}
	if !attached {
		return r.take(buf[:n], nil)
	}
	if r.control == nil {
		r.control = make([]byte, unix.CmsgSpace(maxFDs*4))
	}
	for at := 0; at < n; {
		step := r.frames.step(n - at)
		got, fds, err := r.take(buf[at:at+step], r.control)
		if err != nil {
			return 0, nil, err
		}
		if len(fds) == 0 {
			at += got
			continue
		}
		// The rest of what was sent with them.
		for end := at + got; end < n; end += got {
			if got, _, err = r.take(buf[end:n], nil); err != nil {
				closeAll(fds)
				return 0, nil, err
			}
		}
		if at == 0 {
			return n, fds, nil
		}
		r.held = segment{bytes.Clone(buf[at:n]), fds}
		return at, nil, nil
	}
	return n, nil, nil
}

func (r *receiver) take(buf, control []byte) (n int, fds []int, err error) {
	n, fds, err = r.stream.read(buf, control)
	r.frames.advance(buf[:n])
	return n, fds, err
}

// drop closes what was not received any more.
func (r *receiver) drop() { closeAll(r.held.fds) }

// frames follows the messages of a stream.
type frames struct {
	head []byte // of the message that begins
	left uint64 // bytes of the message behind its header
	lost bool   // out of step
}

func (f *frames) advance(b []byte) {
	for len(b) > 0 && !f.lost {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)))
			f.left -= n
			b = b[n:]
			continue
		}
		n := min(codec.HeaderSize-len(f.head), len(b))
		f.head = append(f.head, b[:n]...)
		b = b[n:]
		if len(f.head) < codec.HeaderSize {
			return
		}
		h, err := codec.DecodeHeader(f.head)
		f.head, f.lost = f.head[:0], err != nil
		f.left = uint64(max(h.Size, codec.HeaderSize)) - codec.HeaderSize
	}
}

// step is how many of the next n bytes may be read at once if descriptors may come.
func (f *frames) step(n int) int {
	switch {
	case f.lost:
		return n
	case f.left > maxSearched:
		return int(min(f.left, uint64(n)))
	}
	return 1
}
