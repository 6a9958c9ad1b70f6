package client

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

const (
	// slice is how long a reader stays in the kernel at most before it looks at its context again.
	slice = 10 * time.Millisecond
	// hotTime is how long the reactor leaves a socket alone that calls read themselves, so that it is not woken
	// for every reply. It bounds how late a disconnect or a command of the server is noticed between calls.
	hotTime = 5 * time.Millisecond
	// receiveRounds bounds how often one event makes the reactor read one socket.
	receiveRounds = 8
)

// conn is the connection: it sends, receives, and finds the call that a reply belongs to.
//
// One goroutine at a time reads (reading): a call that waits, or the reactor when none does. The reactor stops watching
// the socket when it finds a call reading it, and looks again every hotTime until the calls have ceased.
type conn struct {
	fd       int
	reactor  *reactor.Reactor
	serve    func(*conn, *message) // answers a command of the server; runs on whoever reads, must not wait
	spin     time.Duration         // how long a call looks again and again before it waits in the kernel
	callTime time.Duration         // how long a call may take; 0: as long as its context says
	done     chan struct{}         // closed when the session has ended
	gone     chan struct{}         // closed when the descriptor is closed, too

	mu       sync.Mutex
	err      error // why the session has ended
	partner  *conn // the session's other socket, which ends with this one; nil: there is none
	users    int   // calls that may touch the descriptor
	removed  bool  // the reactor has let go of it
	reading  bool
	eager    bool // the reactor always reads: the server may ask for memory at any time
	used     uint64
	slots    []*call
	free     []*call
	slotFree chan struct{} // closed when a slot becomes free; nil: nobody waits

	in  input   // belongs to who reads
	msg message // likewise: the message being handled

	out output

	// The rest belongs to the reactor.
	poll    *reactor.FD
	watched reactor.Events
	recheck *reactor.Timer
	seen    uint64 // value of used at the last look
}

// open takes over a connected stream socket.
func (c *conn) open(fd, limit int) error {
	c.fd, c.in = fd, newInput(limit)
	c.done, c.gone = make(chan struct{}), make(chan struct{})
	c.out.limit = outputMessages * limit
	// Calls wait in the kernel, so the descriptor blocks; all others pass MSG_DONTWAIT.
	if err := unix.SetNonblock(fd, false); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	timeout := unix.NsecToTimeval(slice.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var err error
	if e := c.reactor.Do(func() {
		c.poll, err = c.reactor.Add(fd, reactor.Readable, c)
		c.watched = reactor.Readable
	}); e != nil {
		return e
	}
	return err
}

// leave ends the use of the descriptor that begin began. mu is held.
func (c *conn) leave() {
	c.users--
	c.closeIfUnused()
}

func (c *conn) closeIfUnused() {
	if c.removed && c.users == 0 {
		_ = unix.Close(c.fd)
		c.in.close()
		close(c.gone)
	}
}

// fail ends the session; only the first cause counts. Any goroutine.
func (c *conn) fail(cause error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = cause
	partner := c.partner
	for _, k := range c.slots {
		k.signal()
	}
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // who waits in the kernel comes back
	c.mu.Unlock()
	close(c.done)
	if partner != nil {
		partner.fail(cause)
	}
	if !c.reactor.PostFunc(c.remove) {
		go func() {
			<-c.reactor.Done()
			c.remove()
		}()
	}
}

// remove runs on the reactor, once.
func (c *conn) remove() {
	if c.recheck != nil {
		c.recheck.Stop()
	}
	_ = c.poll.Remove()
	c.poll = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = true
	c.closeIfUnused()
}

// receive reads once, blocking, and handles what came. It returns true when k has its reply or the session has ended.
func (c *conn) receive(k *call) bool {
	err := error(unix.EAGAIN)
	if c.spin > 0 {
		for begin := time.Now(); err == unix.EAGAIN && time.Since(begin) < c.spin; {
			err = c.in.fill(c.fd, false)
		}
	}
	if err == unix.EAGAIN {
		err = c.in.fill(c.fd, true)
	}
	if err == unix.EAGAIN {
		return false
	}
	if err != nil {
		c.fail(err)
		return true
	}
	finished, err := c.handleAll(k)
	if err != nil {
		c.fail(err)
		return true
	}
	return finished
}

// handleAll handles all whole messages that have come and says whether the reply to k was among them.
func (c *conn) handleAll(k *call) (finished bool, err error) {
	for {
		m := &c.msg
		ok, err := c.in.cut(m)
		if err != nil || !ok {
			return finished, err
		}
		if !m.IsReply() {
			c.serve(c, m)
			m.drop()
			continue
		}
		got, err := c.deliver(m)
		m.drop()
		if err != nil {
			return finished, err
		}
		finished = finished || got != nil && got == k
	}
}

// HandleEvents is called by the reactor.
func (c *conn) HandleEvents(ev reactor.Events) {
	if ev&reactor.Writable != 0 {
		c.flush()
	}
	c.mu.Lock()
	if c.reading {
		c.mu.Unlock()
		c.watch(c.watched &^ reactor.Readable)
		c.recheckLater()
		return
	}
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.reading = true
	c.mu.Unlock()
	c.drain()
	c.mu.Lock()
	c.reading = false
	c.passOn()
	c.mu.Unlock()
}

// drain reads what is there, up to a bound.
func (c *conn) drain() {
	for range receiveRounds {
		err := c.in.fill(c.fd, false)
		if err == unix.EAGAIN {
			return
		}
		if err == nil {
			_, err = c.handleAll(nil)
		}
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		ended := c.err != nil
		c.mu.Unlock()
		if ended {
			return
		}
	}
}

// watch changes what the reactor looks for.
func (c *conn) watch(ev reactor.Events) {
	if c.poll == nil {
		return
	}
	c.watched = ev
	if err := c.poll.Modify(ev); err != nil {
		c.fail(err)
	}
}

func (c *conn) recheckLater() {
	switch {
	case c.poll == nil:
	case c.recheck == nil:
		c.recheck = c.reactor.AfterFunc(hotTime, c.lookAgain)
	default:
		c.recheck.Reset(hotTime)
	}
}

// lookAgain watches the socket again once no calls come any more.
func (c *conn) lookAgain() {
	c.mu.Lock()
	busy := c.reading || c.used != c.seen && !c.eager
	c.seen = c.used
	c.mu.Unlock()
	if busy {
		c.recheckLater()
		return
	}
	c.watch(c.watched | reactor.Readable)
}

// setEager says whether the reactor has to read at all times.
func (c *conn) setEager(on bool) {
	c.mu.Lock()
	change := c.eager != on
	c.eager = on
	c.mu.Unlock()
	if change && on {
		c.reactor.PostFunc(func() { c.watch(c.watched | reactor.Readable) })
	}
}

// request is begin, start and wait for a request of a fixed payload; the caller releases the slot.
func (c *conn) request(ctx context.Context, k *call, payload []byte) error {
	if err := c.start(ctx, k, payload, nil, nil); err != nil {
		return err
	}
	return c.wait(ctx, k)
}

// maxMessage is the size of the largest message that the server may send us.
func maxMessage(maxTransfer int) int {
	return codec.HeaderSize + max(fixedSize+maxTransfer, maxControlReply)
}
