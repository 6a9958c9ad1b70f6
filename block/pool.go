package block

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pool runs requests in a bounded number of goroutines. Its queue is linked
// through the requests themselves, so it is never full and never allocates.
// Goroutines are started when there is work and end when there is none.
type pool struct {
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

// worker is the working memory of one goroutine of a pool.
type worker struct {
	next *worker
	loop func() // made once, so that starting a goroutine allocates nothing
	iov  []unix.Iovec
}

// newPool returns a pool of n workers at most. With linger, the last worker
// looks for new work for that long before it ends, because waking a goroutine
// on an idle core costs far more than a request that the page cache can serve.
func newPool(n int, linger time.Duration, run func(w *worker, r *Request) error) *pool {
	p := &pool{run: run, linger: linger}
	p.quiet.L = &p.mu
	workers := make([]worker, n)
	for i := range workers {
		w := &workers[i]
		w.loop = func() { p.loop(w) }
		w.next, p.free = p.free, w
	}
	return p
}

// submit queues a request; its Completer will be called.
func (p *pool) submit(r *Request) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	r.next = nil
	if p.head == nil {
		p.head = r
	} else {
		p.tail.next = r
	}
	p.tail = r
	p.queued.Store(true)
	w := p.starter()
	p.mu.Unlock()
	if w != nil {
		go w.loop()
	}
	return nil
}

// starter takes a worker that must be started now, if there is work for one.
// Workers start one another, so that a burst costs its submitter one start and
// quick requests do not wake a goroutine each. p.mu is held.
func (p *pool) starter() *worker {
	if p.head == nil || p.looking {
		return nil
	}
	w := p.take()
	p.looking = w != nil
	return w
}

// take removes a free worker; p.mu is held.
func (p *pool) take() *worker {
	w := p.free
	if w != nil {
		p.free = w.next
		p.busy++
	}
	return w
}

// put returns a worker that has nothing to do; p.mu is held.
func (p *pool) put(w *worker) {
	w.next, p.free = p.free, w
	p.busy--
	if p.closed && p.busy == 0 {
		p.quiet.Broadcast()
	}
}

// borrow lends a worker's memory to the caller, who does the work himself and
// then calls giveBack. It returns nil if all are busy or the pool is closed.
func (p *pool) borrow() *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	return p.take()
}

func (p *pool) giveBack(w *worker) {
	p.mu.Lock()
	p.put(w)
	next := p.starter()
	p.mu.Unlock()
	if next != nil {
		go next.loop()
	}
}

func (p *pool) loop(w *worker) {
	p.mu.Lock()
	p.looking = false
	for p.head != nil || p.await() {
		r := p.head
		p.head, r.next = r.next, nil
		p.queued.Store(p.head != nil)
		next := p.starter()
		p.mu.Unlock()
		if next != nil {
			go next.loop()
		}
		c := r.Completer
		c.CompleteBlock(r, p.run(w, r))
		p.mu.Lock()
	}
	p.put(w)
	p.mu.Unlock()
}

// await lets one worker wait a little for more work, and reports whether some
// has come. p.mu is held, but not while it waits.
func (p *pool) await() bool {
	if p.linger == 0 || p.looking || p.closed {
		return false
	}
	p.looking = true
	p.mu.Unlock()
	for start := time.Now(); !p.queued.Load() && time.Since(start) < p.linger; {
		runtime.Gosched()
	}
	p.mu.Lock()
	p.looking = false
	return p.head != nil
}

// close refuses new requests and waits until those in flight have ended.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for p.head != nil || p.busy != 0 {
		p.quiet.Wait()
	}
	p.mu.Unlock()
}
