package nvme

import (
	"vfiouser/dma"
)

// A completion queue and its submission queues run together: on a worker, in a group,
// or with goroutines that send messages, in a messenger. The functions here are the
// control goroutine's.

// groupFor chooses the worker for a new completion queue: the least loaded one, and if
// the client is there already, the one with the fewest of its queues. Weights and priorities
// hold among the queues of one worker, so a client that asked for them gets one.
func (h *host) groupFor() *group {
	if h.weighted && len(h.groups) > 0 {
		return h.groups[0]
	}
	w := h.pick()
	var least *group
	for _, g := range h.groups {
		if g.worker == w {
			for _, other := range h.groups {
				if least == nil || len(other.cqs) < len(least.cqs) {
					least = other
				}
			}
			return least
		}
	}
	g := newGroup(h, w)
	h.groups = append(h.groups, g)
	return g
}

// addCQ lets a new completion queue run.
func (h *host) addCQ(q *compQueue) {
	h.settle(q)
	h.cqs[q.id].Store(q)
	h.queues.Add(1)
}

// settle gives a queue that has no owner one, and lets it run.
func (h *host) settle(q *compQueue) {
	if h.byMessage(q) {
		m := newMessenger(h, q)
		h.messengers.Add(1)
		if !h.held {
			m.start()
		}
		return
	}
	g := h.groupFor()
	g.pause()
	g.add(q)
	g.resume()
}

// removeCQ forgets a queue.
func (h *host) removeCQ(q *compQueue) {
	h.cqs[q.id].Store(nil)
	h.queues.Add(-1)
	h.takeCQ(q)
}

// takeCQ takes a queue from its owner; what is in flight has ended then.
func (h *host) takeCQ(q *compQueue) {
	if m := q.messenger; m != nil {
		m.stop()
		q.messenger = nil
		h.messengers.Add(-1)
		return
	}
	g := q.group
	g.pause()
	g.drain()
	g.remove(q)
	g.resume()
}

// change runs f while nobody runs the queue.
func (h *host) change(q *compQueue, f func()) {
	if m := q.messenger; m != nil {
		m.stop()
		f()
		if !h.held {
			m.start()
		}
	} else {
		q.group.pause()
		f()
		q.group.resume()
	}
	h.placeCQ(q)
}

// placeCQ moves a queue between its two kinds of owner if it is with the wrong one.
func (h *host) placeCQ(q *compQueue) {
	if h.byMessage(q) == (q.messenger != nil) {
		return
	}
	h.takeCQ(q)
	h.settle(q)
	q.kick(nil)
}

// place puts every queue where it belongs.
func (h *host) place() {
	for i := range h.cqs {
		if q := h.cqs[i].Load(); q != nil && i > 0 {
			h.placeCQ(q)
		}
	}
}

// stopQueues and startQueues are for LockDataPath.
func (h *host) stopQueues() {
	for _, g := range h.groups {
		g.pause()
	}
	for _, g := range h.groups {
		g.drain()
	}
	h.eachMessenger((*messenger).stop)
}

func (h *host) startQueues() {
	for _, g := range h.groups {
		g.resume()
	}
	h.eachMessenger((*messenger).start)
}

func (h *host) eachMessenger(f func(*messenger)) {
	for i := range h.cqs {
		if q := h.cqs[i].Load(); q != nil && q.messenger != nil {
			f(q.messenger)
		}
	}
}

// dropQueues forgets all I/O queues, after what is in flight has ended: what has not begun is
// aborted.
func (h *host) dropQueues() {
	h.dropping.Store(true)
	defer h.dropping.Store(false)
	h.abortAll()
	h.stopQueues()
	for i := 1; i < len(h.cqs); i++ {
		h.sqs[i].Store(nil)
		if q := h.cqs[i].Swap(nil); q != nil && q.group != nil {
			q.group.remove(q)
		}
	}
	h.queues.Store(0)
	h.messengers.Store(0)
}

// byMessage says whether any memory of a queue or of its submission queues is reached
// by message only.
func (h *host) byMessage(q *compQueue) bool {
	if h.ringByMessage(&q.ring) {
		return true
	}
	for _, sq := range q.sqs {
		if h.ringByMessage(&sq.ring) {
			return true
		}
	}
	return false
}

func (h *host) ringByMessage(q *ring) bool {
	if h.messageOnly(q.base, q.bytes(), q.prot) {
		return true
	}
	s := h.shadow
	return s.set && (h.messageOnly(s.doorbell+uint64(q.doorbell), 4, dma.ProtRead) ||
		h.messageOnly(s.events+uint64(q.doorbell), 4, dma.ProtWrite))
}

// messageOnly says whether a part of a range is reached by message only.
func (h *host) messageOnly(iova, n uint64, p dma.Prot) bool {
	for n > 0 {
		r, err := h.s.Memory().Lookup(iova, 1, p)
		if err != nil {
			return false
		}
		if r.Local == nil {
			return true
		}
		step := min(n, r.Size-(iova-r.IOVA))
		iova, n = iova+step, n-step
	}
	return false
}
