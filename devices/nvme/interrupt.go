package nvme

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"vfiouser/dma"
	"vfiouser/irq"
)

// interrupts chooses between MSI-X, MSI and the pin, as the client enabled them.
type interrupts struct {
	set  *irq.Set
	mode atomic.Uint32 // an irq.Index, or noInterrupt

	mu      sync.Mutex
	intms   uint32  // INTMS: the pin is vector 0 (Base 1.4, 3.1.3)
	pending uint32  // MSI vectors triggered while INTMS masks them
	busy    busySet // completion queues that want the pin raised

	coalescing coalescing
	counts     *interruptCounts
}

// busySet has a bit for each completion queue.
type busySet [MaxQueues/64 + 1]uint64

const noInterrupt = irq.NumIndexes

func (i *interrupts) init(set *irq.Set, counts *interruptCounts, vectors int) {
	i.set, i.counts = set, counts
	i.coalescing.clock, i.coalescing.vectors = systemTime{}, make([]delay, vectors)
	i.mode.Store(noInterrupt)
	i.update()
}

// update looks at what the client has enabled.
func (i *interrupts) update() {
	mode := uint32(noInterrupt)
	for _, index := range []irq.Index{irq.INTx, irq.MSI, irq.MSIX} {
		if i.set.Enabled(index) {
			mode = uint32(index)
		}
	}
	i.mode.Store(mode)
	i.drivePin()
}

func (i *interrupts) pinBased() bool { return i.mode.Load() == uint32(irq.INTx) }

// signal is called when something was posted to a queue: it raises the interrupt, now or
// later.
func (i *interrupts) signal(q *compQueue) {
	q.posted = false
	if !q.interrupt {
		return
	}
	n := q.distance(q.signalled, q.tail)
	q.signalled = q.tail
	switch {
	case i.pinBased():
		i.follow(q, true)
	case q.used == 0 && q.polled > pollHabit:
		i.counts.suppressed.Add(1)
	case !i.delayed(q, n):
		i.raise(q)
	}
}

// raise raises the interrupt of a queue at once.
func (i *interrupts) raise(q *compQueue) {
	switch i.mode.Load() {
	case uint32(irq.MSIX):
		i.counts.raised.Add(1)
		_ = q.irqs[irq.MSIX].Trigger() // fails only when the session has ended
	case uint32(irq.MSI):
		i.counts.raised.Add(1)
		i.triggerMSI(q.vector, q.irqs[irq.MSI])
	case uint32(irq.INTx):
		i.follow(q, true)
	}
}

// trigger is raise for a vector, of messages.
func (i *interrupts) trigger(vector uint16) {
	switch i.mode.Load() {
	case uint32(irq.MSIX):
		i.counts.raised.Add(1)
		_ = i.set.Vector(irq.MSIX, int(vector)).Trigger()
	case uint32(irq.MSI):
		i.counts.raised.Add(1)
		i.triggerMSI(vector, i.vectorMSI(vector))
	}
}

func (i *interrupts) triggerMSI(vector uint16, v *irq.Vector) {
	bit := uint32(1) << (vector % maxMSI)
	i.mu.Lock()
	masked := i.intms&bit != 0
	if masked {
		i.pending |= bit
	}
	i.mu.Unlock()
	if !masked {
		_ = v.Trigger()
	}
}

// pinState is what decides whether a queue wants the pin raised. It is under
// interrupts.mu.
type pinState struct {
	left int64  // entries posted and not consumed; the host may be ahead of its owner
	head uint32 // doorbell up to which left counts
}

// follow makes the pin follow a queue: it is raised while there are entries that the
// host has not consumed. The owner of the queue calls it after it has posted, and the
// reactor at once when the doorbell was trapped: the client unmasks the pin right after,
// and a pin that was still raised then would interrupt the guest for nothing, which
// has no reason to touch the device and so never lowers it.
func (i *interrupts) follow(q *compQueue, owner bool) {
	if !q.interrupt {
		return
	}
	i.mu.Lock()
	p := &q.pin
	head := dma.Load32(q.h.c.doorbells.page, q.doorbell)
	if owner && q.h.shadow.set && q.id != 0 {
		head = q.head
	}
	if head < q.size {
		p.left -= int64(q.distance(p.head, head))
		p.head = head
	}
	if owner {
		p.left = int64(q.distance(p.head, q.tail))
	}
	i.setBusy(q.id, p.left > 0)
	i.mu.Unlock()
	i.drivePin()
}

// forget is for a queue that is gone.
func (i *interrupts) forget(q *compQueue) {
	i.mu.Lock()
	i.setBusy(q.id, false)
	i.mu.Unlock()
	i.drivePin()
}

func (i *interrupts) setBusy(id uint16, busy bool) {
	if busy {
		i.busy[id/64] |= 1 << (id % 64)
	} else {
		i.busy[id/64] &^= 1 << (id % 64)
	}
}

func (i *interrupts) drivePin() {
	i.mu.Lock()
	defer i.mu.Unlock()
	level := i.pinBased() && i.busy != busySet{} && i.intms&1 == 0
	_ = i.set.Vector(irq.INTx, 0).SetLevel(level) // fails only when the session has ended
}

// setMask takes a new value of INTMS.
func (i *interrupts) setMask(intms uint32) {
	i.mu.Lock()
	i.intms = intms
	fire := i.pending &^ intms
	i.pending &^= fire
	i.mu.Unlock()
	for ; fire != 0; fire &= fire - 1 {
		if v := i.set.Vector(irq.MSI, bits.TrailingZeros32(fire)); v != nil {
			_ = v.Trigger()
		}
	}
	i.drivePin()
}

// reset forgets all queues.
func (i *interrupts) reset() {
	i.mu.Lock()
	i.intms, i.pending, i.busy = 0, 0, busySet{}
	i.mu.Unlock()
	i.forgetDelays()
	i.drivePin()
}

// bind gives a queue its vectors. MSI may have fewer than there are queues.
func (i *interrupts) bind(q *compQueue, vector uint16, enabled bool) {
	q.vector, q.interrupt = vector, enabled
	q.irqs[irq.MSIX] = i.set.Vector(irq.MSIX, int(vector))
	q.irqs[irq.MSI] = i.vectorMSI(vector)
}

func (i *interrupts) vectorMSI(vector uint16) *irq.Vector {
	return i.set.Vector(irq.MSI, int(vector)%i.set.Count(irq.MSI))
}
