package trace

import (
	"sync"
	"time"
)

const (
	// queueBytes bounds what waits to be shown. If it is full, the sides wait, too.
	queueBytes = 64 << 20
	// eventBytes is what an event takes beside its bytes, with the allocator's share.
	eventBytes = 256
	// queuePeriod is how often what has come is shown. Nobody is woken for each message,
	// which would cost the sides more than the passing on.
	queuePeriod = 2 * time.Millisecond
	// queueLinger is for how many periods without events the next is not yet worth a wake-up.
	queueLinger = 25
)

// queue holds the events between those who pass on and the one who shows.
type queue struct {
	show func([]Event)
	wake chan struct{}
	done chan struct{} // closed when everything was shown

	mu      sync.Mutex
	room    sync.Cond
	pending []Event
	bytes   int
	asleep  bool // the shower waits for wake
	closed  bool
}

func newQueue(show func([]Event)) *queue {
	q := &queue{show: show, wake: make(chan struct{}, 1), done: make(chan struct{})}
	q.room.L = &q.mu
	go q.run()
	return q
}

// put adds an event; its Bytes must not change any more.
func (q *queue) put(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes > queueBytes {
		q.room.Wait()
	}
	q.pending = append(q.pending, e)
	q.bytes += eventBytes + len(e.Bytes)
	q.rouse()
}

// rouse wakes the one who shows if it does not come by itself. mu is held.
func (q *queue) rouse() {
	if q.asleep {
		q.asleep = false
		q.wake <- struct{}{} // there is room: only one who sleeps is woken, and once
	}
}

// close waits until everything was shown.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.rouse()
	q.mu.Unlock()
	<-q.done
}

func (q *queue) run() {
	defer close(q.done)
	var batch []Event
	for quiet := 0; ; quiet++ {
		q.mu.Lock()
		batch, q.pending = q.pending, batch[:0]
		q.bytes = 0
		closed := q.closed
		q.asleep = len(batch) == 0 && quiet > queueLinger && !closed
		asleep := q.asleep
		q.room.Broadcast()
		q.mu.Unlock()
		switch {
		case len(batch) > 0:
			q.show(batch)
			clear(batch)
			quiet = 0
		case closed:
			return
		case asleep:
			<-q.wake
			quiet = 0
			continue
		}
		if !closed {
			time.Sleep(queuePeriod)
		}
	}
}
