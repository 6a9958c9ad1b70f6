package reactor

import (
	"sync"
	"sync/atomic"
)

const (
	ringSize  = 1024 // a power of two
	closedBit = 1 << 63

	// keepSpill is how many entries an emptied overflow list may keep for the next time.
	keepSpill = 4096
)

// queue holds posted tasks: many producers, one consumer (the loop). It is a bounded lock-free ring, and behind that
// a list with a mutex for when the ring is full. Tasks of one producer come out in the order in which they went in.
//
// Each ring entry carries a sequence number: position p is free for its producer when seq == p, filled when
// seq == p+1, and free for the next round when seq == p+ringSize.
//
// While the list is in use every producer goes there. The consumer takes the whole list at once and notes where
// the ring's tail stood: what lies before that mark is older than the list, what lies behind is younger.
type queue struct {
	tail        atomic.Uint64 // next position to claim; closedBit
	_           [56]byte      // producers and the consumer on cache lines of their own
	head        uint64
	spill       []Task // taken from overflow
	spillNext   int    // first entry of spill not yet taken
	spillMark   uint64 // ring positions before this one come before the spill
	_           [64]byte
	overflowing atomic.Bool

	mu       sync.Mutex
	overflow []Task
	closed   bool

	ring [ringSize]ringEntry
}

type ringEntry struct {
	seq  atomic.Uint64
	task Task
}

func (q *queue) init() {
	for i := range q.ring {
		q.ring[i].seq.Store(uint64(i))
	}
}

// push adds t and returns false if the queue is closed.
func (q *queue) push(t Task) bool {
	for !q.overflowing.Load() {
		pos := q.tail.Load()
		if pos&closedBit != 0 {
			return false
		}
		e := &q.ring[pos%ringSize]
		seq := e.seq.Load()
		switch {
		case seq == pos:
			if q.tail.CompareAndSwap(pos, pos+1) {
				e.task = t
				e.seq.Store(pos + 1)
				return true
			}
		case seq < pos: // the entry of the round before: full
			return q.pushOverflow(t)
		}
	}
	return q.pushOverflow(t)
}

func (q *queue) pushOverflow(t Task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.overflow = append(q.overflow, t)
	q.overflowing.Store(true)
	return true
}

// pop returns the next task, or nil if there is none or its producer has not finished. Consumer only.
func (q *queue) pop() Task {
	if q.spillNext == len(q.spill) && q.overflowing.Load() {
		q.takeOverflow()
	}
	if q.spillNext < len(q.spill) && q.head >= q.spillMark {
		t := q.spill[q.spillNext]
		q.spill[q.spillNext] = nil
		q.spillNext++
		return t
	}
	e := &q.ring[q.head%ringSize]
	if e.seq.Load() != q.head+1 {
		return nil
	}
	t := e.task
	e.task = nil
	e.seq.Store(q.head + ringSize)
	q.head++
	return t
}

func (q *queue) takeOverflow() {
	spare := q.spill[:0]
	if cap(spare) > keepSpill {
		spare = nil
	}
	q.mu.Lock()
	q.spill, q.overflow = q.overflow, spare
	q.spillNext = 0
	// The mark is read before producers may use the ring again.
	q.spillMark = q.tail.Load() &^ closedBit
	q.overflowing.Store(false)
	q.mu.Unlock()
}

// ready tells whether pop would return a task. If it is false, then whoever adds the next one has yet to look
// whether the loop must be signalled. Consumer only.
func (q *queue) ready() bool {
	if q.spillNext < len(q.spill) {
		if q.head >= q.spillMark {
			return true
		}
	} else if q.overflowing.Load() {
		return true
	}
	return q.ring[q.head%ringSize].seq.Load() == q.head+1
}

// close refuses further tasks; those already in can be popped. Consumer only.
func (q *queue) close() {
	q.tail.Or(closedBit)
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}

// drained tells whether a closed queue has given up its last task. Consumer only.
func (q *queue) drained() bool {
	return q.head == q.tail.Load()&^closedBit && q.spillNext == len(q.spill) && !q.overflowing.Load()
}
