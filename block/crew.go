package block

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// crew runs requests in a bounded number of goroutines. Its queue is linked
// through the requests themselves, so it is never full and never allocates.
// Goroutines are started when there is work and end when there is none.
type crew struct {
	run    func(w *worker, r *Request) error
	linger time.Duration

	// queued is true while the queue may hold something; a lingering worker
	// reads it without the lock.
	queued atomic.Bool

	mu         sync.Mutex
	quiet      sync.Cond // nobody is busy, once closed
	head, tail *Request
	free       *worker // not busy
	busy       int
	looking    bool // a worker is about to look at the queue; no other need be started
	closed     bool
}

// worker is the working memory of one goroutine of a crew.
type worker struct {
	next *worker
	loop func() // made once, so that starting a goroutine allocates nothing
	iov  []unix.Iovec
}

// newCrew returns a crew of n workers at most. With linger, the last worker
// looks for new work for that long before it ends, because waking a goroutine
// on an idle core costs far more than a request that the page cache can serve.
func newCrew(n int, linger time.Duration, run func(w *worker, r *Request) error) *crew {
	c := &crew{run: run, linger: linger}
	c.quiet.L = &c.mu
	workers := make([]worker, n)
	for i := range workers {
		w := &workers[i]
		w.loop = func() { c.loop(w) }
		w.next, c.free = c.free, w
	}
	return c
}

// submit queues a request; its Completer will be called.
func (c *crew) submit(r *Request) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	r.next = nil
	if c.head == nil {
		c.head = r
	} else {
		c.tail.next = r
	}
	c.tail = r
	c.queued.Store(true)
	w := c.starter()
	c.mu.Unlock()
	if w != nil {
		go w.loop()
	}
	return nil
}

// starter takes a worker that must be started now, if there is work for one.
// Workers start one another, so that a burst costs its submitter one start and
// quick requests do not wake a goroutine each. c.mu is held.
func (c *crew) starter() *worker {
	if c.head == nil || c.looking {
		return nil
	}
	w := c.take()
	c.looking = w != nil
	return w
}

// take removes a free worker; c.mu is held.
func (c *crew) take() *worker {
	w := c.free
	if w != nil {
		c.free = w.next
		c.busy++
	}
	return w
}

// put returns a worker that has nothing to do; c.mu is held.
func (c *crew) put(w *worker) {
	w.next, c.free = c.free, w
	c.busy--
	if c.closed && c.busy == 0 {
		c.quiet.Broadcast()
	}
}

// borrow lends a worker's memory to the caller, who does the work himself and
// then calls giveBack. It returns nil if all are busy or the crew is closed.
func (c *crew) borrow() *worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	return c.take()
}

func (c *crew) giveBack(w *worker) {
	c.mu.Lock()
	c.put(w)
	next := c.starter()
	c.mu.Unlock()
	if next != nil {
		go next.loop()
	}
}

func (c *crew) loop(w *worker) {
	c.mu.Lock()
	c.looking = false
	for c.head != nil || c.await() {
		r := c.head
		c.head, r.next = r.next, nil
		c.queued.Store(c.head != nil)
		next := c.starter()
		c.mu.Unlock()
		if next != nil {
			go next.loop()
		}
		end := r.Completer
		end.CompleteBlock(r, c.run(w, r))
		c.mu.Lock()
	}
	c.put(w)
	c.mu.Unlock()
}

// await lets one worker wait a little for more work, and reports whether some
// has come. c.mu is held, but not while it waits.
func (c *crew) await() bool {
	if c.linger == 0 || c.looking || c.closed {
		return false
	}
	c.looking = true
	c.mu.Unlock()
	for start := time.Now(); !c.queued.Load() && time.Since(start) < c.linger; {
		runtime.Gosched()
	}
	c.mu.Lock()
	c.looking = false
	return c.head != nil
}

// close refuses new requests and waits until those in flight have ended.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	for c.head != nil || c.busy != 0 {
		c.quiet.Wait()
	}
	c.mu.Unlock()
}
