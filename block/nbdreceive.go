package block

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// nbdMaxChunk is the longest chunk of a structured reply that is not data, in bytes.
const nbdMaxChunk = 8 << 10

// receiving is the half of a connection that belongs to its keeper. Headers come into a small
// buffer, data straight into the request's memory.
type receiving struct {
	c          *nbdConn
	raw        syscall.RawConn
	structured bool

	buf      [512]byte
	from, to int // what is in buf

	msg   unix.Msghdr
	iov   []unix.Iovec
	n     int // of the last call
	errno syscall.Errno
	waste [16 << 10]byte

	more, fill func(fd uintptr) bool // made once
	want       int                   // for more
}

func (in *receiving) init(c *nbdConn) {
	in.c, in.iov = c, newVector()
	in.fill = func(fd uintptr) bool {
		in.n, in.errno = receiveVector(fd, &in.msg, in.iov)
		return in.errno != syscall.EAGAIN
	}
	// Without reads in flight what comes are short answers, and as many are taken as fit.
	// Data of a read that slips in is copied.
	in.more = func(fd uintptr) bool {
		end := len(in.buf)
		if c.reads.Load() > 0 {
			end = in.from + in.want
		}
		v := unix.Iovec{Base: &in.buf[in.to]}
		v.SetLen(end - in.to)
		in.iov = append(in.iov[:0], v)
		return in.fill(fd)
	}
}

func (in *receiving) start(structured bool) {
	in.from, in.to, in.structured = 0, 0, structured
}

// receive makes one call that receives something.
func (in *receiving) receive(attempt func(fd uintptr) bool) error {
	for {
		err := in.raw.Read(attempt)
		clear(in.iov)
		switch {
		case err != nil:
			return err
		case in.errno == syscall.EINTR:
		case in.errno != 0:
			return in.errno
		case in.n == 0:
			return because(syscall.ECONNRESET, "the server closed the connection")
		default:
			in.c.received.Add(1)
			return nil
		}
	}
}

// need returns the next n bytes, which fit in the buffer.
func (in *receiving) need(n int) ([]byte, error) {
	if in.to-in.from < n && in.from > 0 {
		in.to = copy(in.buf[:], in.buf[in.from:in.to])
		in.from = 0
	}
	in.want = n
	for in.to-in.from < n {
		if err := in.receive(in.more); err != nil {
			return nil, err
		}
		in.to += in.n
	}
	in.from += n
	return in.buf[in.from-n : in.from], nil
}

// skip receives n bytes for nobody.
func (in *receiving) skip(n int64) error {
	buffered := min(n, int64(in.to-in.from))
	in.from += int(buffered)
	for n -= buffered; n > 0; n -= int64(in.n) {
		v := unix.Iovec{Base: &in.waste[0]}
		v.SetLen(int(min(n, int64(len(in.waste)))))
		in.iov = append(in.iov[:0], v)
		if err := in.receive(in.fill); err != nil {
			return err
		}
	}
	return nil
}

// data receives n bytes of a read, which lie at an offset of the request. Memory that has gone
// is the request's end and not the connection's.
func (in *receiving) data(s *nbdSlot, at, n int64) error {
	buffered := min(n, int64(in.to-in.from))
	if buffered > 0 && s.err == nil {
		s.err = fillBuffers(s.r.Buffers, at, in.buf[in.from:in.from+int(buffered)])
	}
	in.from += int(buffered)
	at, n = at+buffered, n-buffered
	for n > 0 && s.err == nil {
		in.iov = appendVector(in.iov[:0], s.r.Buffers, at, n)
		in.ahead()
		switch err := in.receive(in.fill); err {
		case nil:
			part := min(int64(in.n), n)
			at, n = at+part, n-part
			in.from, in.to = 0, in.n-int(part)
		case syscall.EFAULT:
			s.err = ErrMemory
		default:
			return err
		}
	}
	return in.skip(n)
}

// ahead has the header behind the data that is received come with it, in the same call. The buffer
// is empty then. A vector with room has all of the data.
func (in *receiving) ahead() {
	if len(in.iov) == cap(in.iov) {
		return
	}
	n := nbdSimpleSize
	if in.structured {
		n = nbdChunkSize + 8 // and where its data belongs
	}
	v := unix.Iovec{Base: &in.buf[0]}
	v.SetLen(n)
	in.iov = append(in.iov, v)
}

// run receives answers until the connection fails.
func (in *receiving) run() error {
	for {
		b, err := in.need(nbdSimpleSize)
		if err != nil {
			return err
		}
		switch magic := binary.BigEndian.Uint32(b); {
		case magic == nbdSimpleMagic:
			err = in.simple(binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:]))
		case magic == nbdChunkMagic && in.structured:
			flags, kind := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
			cookie := binary.BigEndian.Uint64(b[8:])
			if b, err = in.need(nbdChunkSize - nbdSimpleSize); err != nil {
				return err
			}
			err = in.chunk(flags, kind, cookie, int64(binary.BigEndian.Uint32(b)))
		default:
			err = broken("an answer begins with %#x", magic)
		}
		if err != nil {
			return err
		}
	}
}

// command finds what an answer is for.
func (in *receiving) command(cookie uint64) (*nbdSlot, error) {
	c := in.c
	if i := cookie & 0xffff; i < nbdDepth {
		s := &c.slots[i]
		c.b.mu.Lock()
		ok := s.r != nil && s.uses == cookie>>16
		c.b.mu.Unlock()
		if ok && !s.sent.Load() {
			c.out.busy.Lock() // it may have been sent this very moment
			ok = s.sent.Load()
			c.out.busy.Unlock()
		}
		if ok {
			return s, nil
		}
	}
	return nil, broken("an answer to a command that was not sent")
}

// simple handles a simple reply, which the data of a read follows.
func (in *receiving) simple(code uint32, cookie uint64) error {
	s, err := in.command(cookie)
	switch {
	case err != nil:
		return err
	case code != 0:
		if err := in.failed(s, code); err != nil {
			return err
		}
	case s.piece.cmd == nbdCmdRead && in.structured:
		return broken("a simple answer to a read")
	case s.piece.cmd == nbdCmdRead:
		if err := in.data(s, s.piece.off-s.r.Offset, s.piece.n); err != nil {
			return err
		}
	}
	in.c.finish(s)
	return nil
}

// failed takes the error that the server gives. A server that shuts down is as good as gone.
func (in *receiving) failed(s *nbdSlot, code uint32) error {
	errno := nbdErrno(code)
	if errno == syscall.ESHUTDOWN {
		return because(errno, "the server is shutting down")
	}
	if s.err == nil {
		s.err = outcome(s.r, errno)
		s.failed = true
	}
	return nil
}

// chunk handles one of the chunks of a structured reply.
func (in *receiving) chunk(flags, kind uint16, cookie uint64, n int64) error {
	s, err := in.command(cookie)
	if err != nil {
		return err
	}
	read := s.piece.cmd == nbdCmdRead
	switch {
	case kind&nbdChunkError != 0:
		err = in.errorChunk(s, n)
	case kind == nbdChunkNone && n == 0 && flags&nbdChunkDone != 0:
	case kind == nbdChunkOffsetData && read && n > 8 && n-8 <= s.piece.n:
		err = in.dataChunk(s, n-8)
	case kind == nbdChunkOffsetHole && read && n == 12:
		err = in.holeChunk(s)
	default:
		err = broken("a chunk of type %d and %d bytes", kind, n)
	}
	if err != nil || flags&nbdChunkDone == 0 {
		return err
	}
	if read && !s.failed && s.err == nil && s.got != s.piece.n {
		return broken("%d bytes for a read of %d", s.got, s.piece.n)
	}
	in.c.finish(s)
	return nil
}

// claim checks which part of a read a chunk is, and returns where it lies in the request.
func (s *nbdSlot) claim(off uint64, n int64) (at int64, err error) {
	p := &s.piece
	rel := off - uint64(p.off)
	if rel > uint64(p.n) || n > p.n-int64(rel) || n > p.n-s.got {
		return 0, broken("a chunk of %d bytes at %d for a read of %d at %d", n, off, p.n, p.off)
	}
	s.got += n
	return p.off - s.r.Offset + int64(rel), nil
}

func (in *receiving) dataChunk(s *nbdSlot, n int64) error {
	b, err := in.need(8)
	if err != nil {
		return err
	}
	at, err := s.claim(binary.BigEndian.Uint64(b), n)
	if err != nil {
		return err
	}
	return in.data(s, at, n)
}

func (in *receiving) holeChunk(s *nbdSlot) error {
	b, err := in.need(12)
	if err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(b[8:]))
	at, err := s.claim(binary.BigEndian.Uint64(b), n)
	if err == nil && s.err == nil {
		s.err = zeroBuffers(s.r.Buffers, at, n)
	}
	return err
}

func (in *receiving) errorChunk(s *nbdSlot, n int64) error {
	if n < 6 || n > nbdMaxChunk {
		return broken("an error of %d bytes", n)
	}
	b, err := in.need(6)
	if err != nil {
		return err
	}
	code := binary.BigEndian.Uint32(b)
	if code == 0 {
		return broken("an error without a number")
	}
	if err := in.skip(n - 6); err != nil {
		return err
	}
	return in.failed(s, code)
}
