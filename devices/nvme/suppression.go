package nvme

import "sync/atomic"

// pollHabit is how many rounds in a row the host must have been ahead of the interrupt before
// it is taken for one that polls.
const pollHabit = 64

// observe is called when a round has posted to a queue. A host whose head doorbell has
// passed all entries has seen them, and an interrupt would tell it nothing: interrupts are
// for entries that were not acknowledged (Base 1.4, 7.5.1). Once that was so for some time
// the interrupt is left out, in each round anew, as long as it is so.
//
// To go further and leave it out for entries that were not acknowledged yet, because
// the host has polled until now, would not be sound: nothing says that it goes on, and
// a completion queue has no event index by which it could ask for an interrupt. Nor may an
// earlier interrupt that was not reacted to yet stand for later entries: the host may be
// past its last look at the queue and not have written the doorbell.
func (q *compQueue) observe() {
	q.room(q.size)
	if q.used == 0 {
		q.polled = min(q.polled+1, pollHabit+1)
	} else {
		q.polled = 0
	}
}

// interruptCounts is what InterruptStats gives.
type interruptCounts struct{ raised, delayed, suppressed atomic.Uint64 }

// InterruptStats says what became of the interrupts of a controller's completion queues, MSI
// and MSI-X, since it was made.
type InterruptStats struct {
	Raised     uint64 // messages
	Delayed    uint64 // rounds whose interrupt waited for others (Interrupt Coalescing)
	Suppressed uint64 // rounds without interrupt, as the host had consumed all entries
}

// InterruptStats gives the counts. Any goroutine.
func (c *Controller) InterruptStats() InterruptStats {
	n := &c.interruptCounts
	return InterruptStats{n.raised.Load(), n.delayed.Load(), n.suppressed.Load()}
}
