package block

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// sending is the half of a connection that belongs to its sender: whoever has set
// nbdConn.sending. That is whoever submits or receives, as long as the socket takes it all,
// and else the connection's writer.
type sending struct {
	raw   syscall.RawConn
	slot  *nbdSlot // being sent; nil: none
	at    int64    // bytes of it that are sent, the header's included
	head  [nbdRequestSize]byte
	msg   unix.Msghdr
	iov   []unix.Iovec
	errno syscall.Errno // of the last call

	// busy is held while the kernel reads the request's memory. Whoever has waited for it
	// knows whether the command is sent.
	busy sync.Mutex

	try, wait func(fd uintptr) bool // made once
}

func (o *sending) init(c *nbdConn) {
	o.iov = newVector()
	o.try = func(fd uintptr) bool { c.send(fd); return true }
	o.wait = func(fd uintptr) bool { c.send(fd); return o.errno != syscall.EAGAIN }
}

// pump sends what is in the queue until that is empty or no more may be in flight; then nobody
// is the sender. With wait it waits for a socket that is full, otherwise it leaves that, and
// what is too much for the caller, to the writer.
func (c *nbdConn) pump(wait bool) {
	const most = 64 // commands that a caller sends
	o := &c.out
	for n := 0; ; {
		if o.slot == nil {
			if !wait && n == most {
				c.writable <- struct{}{}
				return
			}
			n++
			if !c.next() {
				return
			}
		}
		attempt := o.try
		if wait {
			attempt = o.wait
		}
		err := o.raw.Write(attempt)
		switch {
		case err != nil:
		case o.errno == 0 || o.errno == syscall.EINTR:
			continue
		case o.errno == syscall.EAGAIN:
			c.writable <- struct{}{}
			return
		case o.errno == syscall.EFAULT:
			if c.forget() {
				continue
			}
			err = ErrMemory
		default:
			err = o.errno
		}
		c.drop(err)
		o.slot = nil
		c.retire()
		return
	}
}

// next takes a request from the queue into a slot. Without one the caller is no longer the sender.
func (c *nbdConn) next() bool {
	b, o := c.b, &c.out
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.head
	if r == nil || !c.up || len(c.free) == 0 {
		c.sending = false
		if !c.up {
			b.quiet.Broadcast()
		}
		return false
	}
	b.head, r.next = r.next, nil
	s := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	s.uses++
	s.r, s.piece = r, b.piece(r)
	if s.piece.cmd == nbdCmdRead {
		c.reads.Add(1)
	}
	o.slot, o.at = s, 0
	putNBDRequest(o.head[:], s.piece, s.cookie())
	return true
}

// retire makes nobody the sender.
func (c *nbdConn) retire() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.sending = false
	c.b.quiet.Broadcast()
}

// send makes one call for the rest of a command, or as much of it as fits.
func (c *nbdConn) send(fd uintptr) {
	o := &c.out
	s := o.slot
	o.busy.Lock()
	defer o.busy.Unlock()
	iov, at := o.iov[:0], o.at
	if at < nbdRequestSize {
		v := unix.Iovec{Base: &o.head[at]}
		v.SetLen(int(nbdRequestSize - at))
		iov, at = append(iov, v), nbdRequestSize
	}
	total := int64(nbdRequestSize)
	if p := &s.piece; p.hasData() {
		total += p.n
		skip := at - nbdRequestSize
		if s.r.Op == Write {
			iov = appendVector(iov, s.r.Buffers, p.off-s.r.Offset+skip, p.n-skip)
		} else {
			iov = appendZeroes(iov, p.n-skip)
		}
	}
	n, errno := sendVector(fd, &o.msg, iov)
	clear(iov) // a connection at rest must not keep the caller's buffers alive
	o.errno = errno
	if o.at += int64(n); o.at == total {
		o.slot = nil
		s.sent.Store(true)
	}
}

// appendZeroes appends n zero bytes to a vector, as far as there is room for them.
func appendZeroes(iov []unix.Iovec, n int64) []unix.Iovec {
	for n > 0 && len(iov) < cap(iov) {
		v := unix.Iovec{Base: &zeroes[0]}
		part := min(n, int64(len(zeroes)))
		v.SetLen(int(part))
		iov, n = append(iov, v), n-part
	}
	return iov
}

// forget ends the request that was to be sent and whose memory has gone, if the server has
// heard nothing of it. If it has, the connection has to go: the rest of the data will never come.
func (c *nbdConn) forget() bool {
	b, o := c.b, &c.out
	s := o.slot
	b.mu.Lock()
	if o.at > 0 || !c.up {
		s.err = ErrMemory
		b.mu.Unlock()
		return false
	}
	r := s.r
	c.release(s)
	o.slot = nil
	b.mu.Unlock()
	b.end(r, ErrMemory)
	return true
}
