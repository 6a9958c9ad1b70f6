package block

import "syscall"

const (
	// nbdTimeoutTicks is the timeout, on the backend's clock.
	nbdTimeoutTicks = 16
	// nbdSilentTicks is for how long a server may say nothing while it has something to do.
	nbdSilentTicks = nbdTimeoutTicks / 2
)

// expired tells whether a request has had its time; b.mu is held.
func (b *nbd) expired(r *Request) bool { return b.ticks-r.born > nbdTimeoutTicks }

// timeout is the result of a request that has had its time; b.mu is held.
func (b *nbd) timeout(r *Request) error {
	err := because(syscall.ETIMEDOUT, "no answer from %s within %v", b.uri, b.opt.Timeout)
	if b.lastErr != nil {
		err = because(syscall.ETIMEDOUT, "%v (the last trouble: %v)", err, b.lastErr)
	}
	return &Error{r.Op, r.Offset, r.Length, err}
}

// tick advances the clock, which runs while there are requests. It ends those that have waited
// for too long, and gives up connections that are silent or have a request that must end.
func (b *nbd) tick() {
	b.mu.Lock()
	b.ticks++
	for _, c := range b.conns {
		c.look()
	}
	var late *Request
	for at := &b.head; *at != nil; {
		if r := *at; b.expired(r) {
			*at, r.next, late = r.next, late, r
		} else {
			b.tail, at = r, &r.next
		}
	}
	var err error
	b.ticking = b.inflight > 0
	if b.ticking {
		b.ticker.Reset(b.opt.Timeout / nbdTimeoutTicks)
	}
	b.mu.Unlock()
	for r := late; r != nil; r = late {
		late, r.next = r.next, nil
		b.mu.Lock()
		err = b.timeout(r)
		b.mu.Unlock()
		b.end(r, err)
	}
}

// look gives the connection up if nothing is to be hoped from it; b.mu is held.
func (c *nbdConn) look() {
	received := c.received.Load()
	if c.idle++; received != c.seen || len(c.free) == cap(c.free) {
		c.seen, c.idle = received, 0
	}
	if !c.up {
		return
	}
	if c.idle > nbdSilentTicks {
		c.dropLocked(because(syscall.ETIMEDOUT, "the server has said nothing for %v", c.b.opt.Timeout/2))
		return
	}
	for i := range c.slots {
		if r := c.slots[i].r; r != nil && c.b.expired(r) {
			c.dropLocked(because(syscall.ETIMEDOUT, "the server has not answered a command for %v", c.b.opt.Timeout))
			return
		}
	}
}
