package client

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
)

// outputMessages is how many of the largest messages may wait to be sent.
const outputMessages = 4

// output is the sending side. Nobody ever waits in the kernel to send: what does not fit is kept and sent by the reactor.
type output struct {
	mu    sync.Mutex
	rest  []byte        // of messages of which the beginning is sent, or that are replies to the server
	limit int           // of rest, in bytes
	space chan struct{} // closed when rest was sent and the socket takes more; nil: nobody waits
}

// send sends a message that consists of head and data, with descriptors. It waits while the server does not read; once a
// byte is out the rest will follow whatever happens to ctx, so the stream stays whole. head and data
// are the caller's again on return.
func (c *conn) send(ctx context.Context, fds []int, head, data []byte) error {
	for {
		c.out.mu.Lock()
		if len(c.out.rest) == 0 {
			n, err := reactor.SendMsg(c.fd, fds, head, data)
			if err == nil {
				c.keep(n, head, data)
				c.out.mu.Unlock()
				return nil
			}
			if err != unix.EAGAIN {
				c.out.mu.Unlock()
				return c.sendFailed(err)
			}
		}
		if c.out.space == nil {
			c.out.space = make(chan struct{})
			c.reactor.PostFunc(c.watchWritable)
		}
		space := c.out.space
		c.out.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return c.Err()
		}
	}
}

// respond sends a reply to a command of the server. It never waits; a server that does not read is given up.
func (c *conn) respond(head, data []byte) {
	c.out.mu.Lock()
	n, err := 0, error(unix.EAGAIN)
	if len(c.out.rest) == 0 {
		n, err = reactor.SendMsg(c.fd, nil, head, data)
	}
	switch {
	case err != nil && err != unix.EAGAIN:
		c.out.mu.Unlock()
		_ = c.sendFailed(err)
		return
	case len(c.out.rest)+len(head)+len(data)-n > c.out.limit:
		c.out.mu.Unlock()
		c.fail(ErrUnread)
		return
	}
	c.keep(n, head, data)
	c.out.mu.Unlock()
}

// keep stores what is left of a message of which n bytes were sent.
func (c *conn) keep(n int, head, data []byte) {
	if n == len(head)+len(data) {
		return
	}
	if len(c.out.rest) == 0 {
		c.reactor.PostFunc(c.watchWritable)
	}
	c.out.rest = append(c.out.rest, head[min(n, len(head)):]...)
	c.out.rest = append(c.out.rest, data[max(n-len(head), 0):]...)
}

// sendFailed tells a lost connection from a message that could not be sent.
func (c *conn) sendFailed(err error) error {
	switch err {
	case unix.EPIPE, unix.ECONNRESET, unix.ENOTCONN:
		c.fail(ErrDisconnected)
		return c.Err()
	}
	return &SendError{err}
}

// SendError: the kernel did not take a message, for example because a descriptor in it is not one. Nothing was sent.
type SendError struct{ Cause error }

func (e *SendError) Error() string { return "client: send: " + e.Cause.Error() }

// Unwrap makes errors.Is find the errno.
func (e *SendError) Unwrap() error { return e.Cause }

// watchWritable runs on the reactor. It also watches for reading: the server may be waiting for us to do so.
func (c *conn) watchWritable() { c.watch(reactor.Readable | reactor.Writable) }

// flush runs on the reactor.
func (c *conn) flush() {
	c.out.mu.Lock()
	for len(c.out.rest) > 0 {
		n, err := reactor.SendMsg(c.fd, nil, c.out.rest)
		if err == unix.EAGAIN {
			c.out.mu.Unlock()
			return
		}
		if err != nil {
			c.out.mu.Unlock()
			_ = c.sendFailed(err)
			return
		}
		c.out.rest = c.out.rest[n:]
	}
	c.out.rest = nil
	if c.out.space != nil {
		close(c.out.space)
		c.out.space = nil
	}
	c.out.mu.Unlock()
	c.watch(c.watched &^ reactor.Writable)
}
