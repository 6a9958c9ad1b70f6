package block

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nbdSlot is a command in flight. What the server calls a cookie is its number and how often
// it was used, so that an answer to something else is noticed.
type nbdSlot struct {
	index uint16
	uses  uint64
	r     *Request // nil: the slot is free
	piece piece
	// sent is set when the last byte has been handed to the kernel: before that nobody may
	// have the request back, whatever the server answers.
	sent atomic.Bool
	got  int64 // bytes of a read that have come
	err  error // what the request will end with
	// failed: the server has answered with an error, be it one that is none for the request.
	failed bool
}

func (s *nbdSlot) cookie() uint64 { return s.uses<<16 | uint64(s.index) }

// nbdConn is one connection's place. Its keeper makes the connection, receives from it, and
// makes it again.
type nbdConn struct {
	b     *nbd
	slots [nbdDepth]nbdSlot

	// Guarded by b.mu.
	conn    net.Conn
	up      bool // commands may be sent
	sending bool // somebody is the sender
	free    []*nbdSlot
	cause   error // why the connection is given up
	seen    uint64
	idle    int // ticks without a sign of life

	received atomic.Uint64 // calls that received something
	reads    atomic.Int32  // in flight
	answers  uint64        // commands that were answered; the keeper's

	out      sending
	in       receiving
	writable chan struct{} // to the writer: it is the sender now, and the socket is full
}

func newNBDConn(b *nbd) *nbdConn {
	c := &nbdConn{b: b, writable: make(chan struct{}, 1), free: make([]*nbdSlot, 0, nbdDepth)}
	for i := range c.slots {
		c.slots[i].index = uint16(i)
		c.free = append(c.free, &c.slots[i])
	}
	c.out.init(c)
	c.in.init(c)
	return c
}

// keep has the connection made again whenever it goes, until the backend is closed.
func (c *nbdConn) keep(conn net.Conn, structured bool) {
	b := c.b
	for attempt := 0; ; {
		if conn == nil {
			fresh, e, err := b.dial()
			if err != nil {
				if b.ctx.Err() != nil {
					return
				}
				b.note("no connection to the NBD server", err, attempt == 0)
				if attempt++; !b.rest(attempt) {
					return
				}
				continue
			}
			conn, structured = fresh, e.structured
		}
		answered, err := c.serve(conn, structured)
		conn = nil
		if b.ctx.Err() != nil {
			return
		}
		if answered {
			attempt = 0
		}
		b.note("connection to the NBD server lost", err, true)
		// A guest whose memory has gone is not the server's fault.
		if answered || errors.Is(err, ErrMemory) {
			continue
		}
		if attempt++; !b.rest(attempt) {
			return
		}
	}
}

// note remembers why there is no connection.
func (b *nbd) note(what string, err error, tell bool) {
	b.mu.Lock()
	b.lastErr = err
	b.mu.Unlock()
	if tell && b.opt.Logger != nil {
		b.opt.Logger.Warn(what, "server", b.uri, "error", err)
	}
}

// rest waits before an attempt at a connection. It returns false when the backend is closed.
func (b *nbd) rest(attempt int) bool {
	t := time.NewTimer(pause(attempt))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// serve sends and receives on a connection until it fails, and gives back what was in flight
// then. It reports whether the server has answered anything.
func (c *nbdConn) serve(conn net.Conn, structured bool) (answered bool, err error) {
	b := c.b
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		_ = conn.Close()
		return false, err
	}
	c.out.raw, c.in.raw = raw, raw
	c.in.start(structured)
	var writer sync.WaitGroup
	stopWriter := make(chan struct{})
	writer.Go(func() {
		for {
			select {
			case <-c.writable:
				c.pump(true)
			case <-stopWriter:
				return
			}
		}
	})
	stop := context.AfterFunc(b.ctx, func() { c.disconnect(conn) })

	b.mu.Lock()
	c.conn, c.up, c.cause, c.idle = conn, true, nil, 0
	s := b.sender()
	b.mu.Unlock()
	if s != nil {
		s.pump(false)
	}

	before := c.answers
	err = c.in.run()
	answered = c.answers != before

	stop()
	b.mu.Lock()
	c.up = false
	_ = conn.Close()
	for c.sending {
		b.quiet.Wait()
	}
	if c.cause != nil {
		err = c.cause
	}
	b.mu.Unlock()
	close(stopWriter)
	writer.Wait()
	c.giveBack()
	return answered, err
}

// disconnect says goodbye when nothing is in flight any more.
func (c *nbdConn) disconnect(conn net.Conn) {
	var b [nbdRequestSize]byte
	putNBDRequest(b[:], piece{cmd: nbdCmdDisconnect}, 0)
	_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = conn.Write(b[:])
	_ = conn.Close()
}

// drop gives the connection up; its keeper will notice.
func (c *nbdConn) drop(err error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.dropLocked(err)
}

func (c *nbdConn) dropLocked(err error) {
	if !c.up {
		return
	}
	c.up = false
	if c.cause == nil {
		c.cause = err
	}
	_ = c.conn.Close()
}

// giveBack queues again what was in flight on a connection that nobody uses any more, and ends
// what has failed or has waited for too long.
func (c *nbdConn) giveBack() {
	b := c.b
	for i := range c.slots {
		s := &c.slots[i]
		b.mu.Lock()
		r, err := s.r, s.err
		if r == nil {
			b.mu.Unlock()
			continue
		}
		c.release(s)
		if err == nil && b.expired(r) {
			err = b.timeout(r)
		}
		if err == nil {
			b.enqueue(r)
		}
		next := b.sender()
		b.mu.Unlock()
		if next != nil {
			next.pump(false)
		}
		if err != nil {
			b.end(r, err)
		}
	}
}

// release makes a slot free; b.mu is held.
func (c *nbdConn) release(s *nbdSlot) {
	if s.piece.cmd == nbdCmdRead {
		c.reads.Add(-1)
	}
	s.r, s.err, s.failed, s.got = nil, nil, false, 0
	s.sent.Store(false)
	c.free = append(c.free, s)
}

// finish ends a command that was answered, and sends what has waited for its place.
func (c *nbdConn) finish(s *nbdSlot) {
	b := c.b
	b.mu.Lock()
	r, err := s.r, s.err
	more := !s.failed && err == nil && b.advance(r, &s.piece)
	c.release(s)
	c.answers++
	if more {
		b.enqueue(r)
	}
	next := b.sender()
	b.mu.Unlock()
	if !more {
		b.end(r, err)
	}
	if next != nil {
		next.pump(false)
	}
}

// vectorSize is how many buffers go into one call.
const vectorSize = 256

func newVector() []unix.Iovec { return make([]unix.Iovec, 0, vectorSize) }
