package nvme

import (
	"sync/atomic"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// command is an I/O command from its fetch to its completion. A queue has as many as
// were ever in flight and uses them again.
type command struct {
	entry   spec.SubmissionEntry // private copy: the guest cannot change it any more
	queue   *subQueue
	ns      *namespace
	request block.Request
	plan    plan // of a command in a batch
	result  spec.Status
	pins    []dma.Pin // of the memory in request.Buffers, if the backend is asynchronous
	counted bool      // by the gate of the namespace
	era     uint32    // of the namespace when it was given to the couriers
	first   *command  // of the fused pair that it is the second half of
	second  *command  // of the one that it is the first half of
	next    *command  // in the list that holds it: done, waiting for room, or to be run
	flight  flight    // its place among those of its queue
}

func newCommand() *command {
	c := new(command)
	c.request.Completer = c
	return c
}

// CompleteBlock is called by a backend, from any goroutine.
func (c *command) CompleteBlock(r *block.Request, err error) {
	c.finish(c.queue.outcome(r.Op, err))
}

// finish hands the command back to whoever posts the completions of its queue.
func (c *command) finish(st spec.Status) {
	c.result = st
	c.giveUp()
	c.queue.cq.done.push(c)
}

// giveUp lets go of what a command in flight holds.
func (c *command) giveUp() {
	c.unpin()
	if c.counted {
		c.counted = false
		c.ns.gate.end()
	}
}

func (c *command) unpin() {
	for i := range c.pins {
		c.pins[i].Release()
	}
	c.pins = c.pins[:0]
}

// doneList takes completed commands from any goroutine and gives them to the one
// that posts them.
type doneList struct {
	head atomic.Pointer[command]
	wake func() // tells the owner; it may be called without need

	draining atomic.Bool   // the owner waits in wait
	pushed   chan struct{} // capacity 1
}

func (l *doneList) push(c *command) {
	for {
		old := l.head.Load()
		c.next = old
		if l.head.CompareAndSwap(old, c) {
			break
		}
	}
	if l.draining.Load() {
		notify(l.pushed)
		return
	}
	l.wake()
}

// take empties the list: its n commands, oldest first.
func (l *doneList) take() (first *command, n uint32) {
	for c := l.head.Swap(nil); c != nil; n++ {
		c.next, c, first = first, c.next, c
	}
	return first, n
}

// wait blocks until the list holds something.
func (l *doneList) wait() {
	l.draining.Store(true)
	for l.head.Load() == nil {
		<-l.pushed
	}
	l.draining.Store(false)
}

// notify signals a channel of capacity 1.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// waitList holds completed commands, in order, that wait for room in their queue.
type waitList struct{ head, tail *command }

func (l *waitList) add(c *command) {
	c.next = nil
	if l.head == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
}

func (l *waitList) len() (n int) {
	for c := l.head; c != nil; c = c.next {
		n++
	}
	return n
}

func (l *waitList) remove() *command {
	c := l.head
	l.head, c.next = c.next, nil
	return c
}
