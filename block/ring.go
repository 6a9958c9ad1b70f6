package block

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// ringEntries is how many requests to one file the kernel works on at the same time;
	// others wait.
	ringEntries = 256
	// ringPortion is how many completions are delivered before the lock is taken again.
	ringPortion = 32

	ringCached, ringDirect = 0, 1 // the positions of the ring's files
)

// ringEvent is a number of 64 bits, in any order, that is not 0 and not the largest.
var ringEvent = [8]byte{1}

// Poller is a Backend that works best for somebody who submits requests in rounds and looks
// for completions himself, with no system call, instead of having another goroutine woken.
// Both methods may be called from any goroutine.
type Poller interface {
	Backend
	// Poll starts what was submitted with Request.Batch set and delivers what has ended, in
	// this goroutine: requests of whoever they are, and a bounded number of them. Until Rest
	// is called nothing else may deliver them. The kernel's own threads do what would block: who
	// polls in vain gives way to them, see sched_yield(2).
	Poll()
	// Rest says that the caller does not call Poll any more, for now: what is still in flight
	// is started if need be, and delivered without him. Who has called Poll has to
	// call it.
	Rest()
}

// ring runs requests to a file through an io_uring of its own. Completions are delivered by
// who polls, or else by a goroutine that an eventfd wakes.
type ring struct {
	fd    int // of the ring
	file  *file
	enter func(fd int, n uint32) (int, syscall.Errno)
	event *os.File
	ended chan struct{} // the goroutine
	begun atomic.Bool   // a request with Batch came after the last Poll

	mu         sync.Mutex
	quiet      sync.Cond // something has ended that Close may wait for
	mem        ringMemory
	slots      []ringSlot // of requests that have an entry
	free       int32      // the first slot that has none; -1: all have
	head, tail *Request   // wait for a slot
	inflight   int        // waiting ones included
	fresh      uint32     // entries that the kernel was not told of
	entering   bool       // somebody is telling it, and looks again when he is done
	polled     bool
	closed     bool
}

// ringSlot is a request in flight and the vector of its buffers.
type ringSlot struct {
	r    *Request
	iov  []unix.Iovec
	next int32
}

func newRing(f *file) (*ring, error) {
	g := &ring{file: f, enter: f.kernel.enterRing, ended: make(chan struct{}), slots: make([]ringSlot, ringEntries)}
	g.quiet.L = &g.mu
	for i := range g.slots {
		g.slots[i].next = int32(i) - 1
	}
	g.free = ringEntries - 1
	var err error
	if g.fd, g.mem, err = f.kernel.setupRing(ringEntries); err != nil {
		return nil, err
	}
	if err = g.register(); err != nil {
		g.giveBack()
		return nil, err
	}
	go g.watch()
	return g, nil
}

// register tells the ring of its files, at ringCached and ringDirect, and of the eventfd.
func (g *ring) register() error {
	if err := keepFiles(g.fd, int32(g.file.fd), int32(g.file.direct)); err != nil {
		return err
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	if err := watchRing(g.fd, event); err != nil {
		_ = unix.Close(event)
		return err
	}
	g.event = os.NewFile(uintptr(event), "eventfd")
	return nil
}

// giveBack ends what the ring has in the kernel.
func (g *ring) giveBack() {
	dropFiles(g.fd)
	g.mem.unmap()
	_ = unix.Close(g.fd)
}

// submit takes a request; its Completer will be called.
func (g *ring) submit(r *Request) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	g.inflight++
	if g.free >= 0 {
		g.start(r)
	} else {
		r.next = nil
		if g.head == nil {
			g.head = r
		} else {
			g.tail.next = r
		}
		g.tail = r
	}
	if !r.Batch {
		g.flush()
	}
	return nil
}

// start makes an entry of a request. There is a free slot, so there is room for it. g.mu is held.
func (g *ring) start(r *Request) {
	i := g.free
	s := &g.slots[i]
	g.free, s.r = s.next, r
	file := int32(ringCached)
	if r.Op == Read || r.Op == Write {
		parts := min(len(r.Buffers), maxIovecs)
		if cap(s.iov) < parts {
			s.iov = make([]unix.Iovec, 0, parts)
		}
		s.iov = appendVector(s.iov[:0:parts], r.Buffers, r.done, r.Length-r.done)
		if g.file.descriptor(s.iov, r) != g.file.fd {
			file = ringDirect
		}
	}
	g.mem.entry().fill(r, file, s.iov, uint64(i))
	g.mem.push()
	g.fresh++
}

// release frees a slot and has the next request take it. g.mu is held.
func (g *ring) release(i int32) *Request {
	s := &g.slots[i]
	r := s.r
	// A slot at rest must not keep the caller's buffers alive.
	clear(s.iov)
	s.iov = s.iov[:0]
	s.r, s.next, g.free = nil, g.free, i
	if next := g.head; next != nil {
		g.head, next.next = next.next, nil
		g.start(next)
	}
	return r
}

// flush tells the kernel of new entries. g.mu is held, but not during the call.
func (g *ring) flush() {
	if g.entering {
		return
	}
	g.entering = true
	for g.fresh > 0 {
		n := g.fresh
		g.mu.Unlock()
		took, errno := g.enter(g.fd, n)
		g.mu.Lock()
		switch {
		case errno == 0 && took > 0:
			g.fresh -= uint32(took)
		case errno != syscall.EINTR:
			g.refuse()
		}
	}
	g.entering = false
	g.settle()
}

// refuse has the crew do what the kernel has no room for. g.mu is held.
func (g *ring) refuse() {
	for g.fresh > 0 {
		i := int32(g.mem.pull().user)
		g.fresh--
		g.handOver(g.release(i)) // what waits gets the entry, and is next
	}
}

// handOver has the crew do a request, or what is left of it. g.mu is held.
func (g *ring) handOver(r *Request) {
	_ = g.file.crew.submit(r) // it is closed after the ring, so it takes it
	g.inflight--
	g.settle()
}

// settle wakes Close. g.mu is held.
func (g *ring) settle() {
	if g.closed && g.inflight == 0 && !g.entering {
		g.quiet.Broadcast()
	}
}

// reap delivers a portion of what has ended and returns how many entries that were. g.mu is
// held, but not during the deliveries.
func (g *ring) reap() (n int) {
	var ended [ringPortion]struct {
		r   *Request
		err error
	}
	delivered := 0
	for n < ringPortion {
		res, ok := g.mem.next()
		if !ok {
			break
		}
		n++
		r := g.release(int32(res.user))
		done, err := g.file.outcome(r, g.file.kernel.result(r, res.res))
		if !done {
			g.handOver(r)
			continue
		}
		ended[delivered].r, ended[delivered].err = r, err
		delivered++
	}
	if delivered > 0 {
		g.mu.Unlock()
		for _, e := range ended[:delivered] {
			e.r.Completer.CompleteBlock(e.r, e.err)
		}
		g.mu.Lock()
		g.inflight -= delivered
		g.settle()
	}
	return n
}

// watch delivers what nobody polls for.
func (g *ring) watch() {
	defer close(g.ended)
	var count [8]byte
	for {
		if _, err := g.event.Read(count[:]); err != nil {
			return
		}
		g.mu.Lock()
		for !g.polled && g.reap() > 0 {
			g.flush()
		}
		g.mu.Unlock()
	}
}

func (g *ring) poll() {
	g.begun.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inflight == 0 || g.closed {
		return
	}
	if !g.polled {
		g.polled = true
		g.mem.mute(true)
	}
	g.flush()
	g.reap()
	g.flush()
}

func (g *ring) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rouse()
	g.flush()
}

// rouse has the goroutine deliver what ends, and what has ended. g.mu is held.
func (g *ring) rouse() {
	if !g.polled {
		return
	}
	g.polled = false
	g.mem.mute(false)
	if g.mem.ready() {
		_, _ = g.event.Write(ringEvent[:])
	}
}

// close waits for requests in flight.
func (g *ring) close() {
	g.mu.Lock()
	g.closed = true
	g.rouse()
	g.flush()
	for g.inflight > 0 || g.entering {
		g.quiet.Wait()
	}
	g.mu.Unlock()
	_ = g.event.Close()
	<-g.ended
	g.giveBack()
}
