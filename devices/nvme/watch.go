package nvme

import (
	"vfiouser/dma"
	"vfiouser/engine"
)

// doorbellWatch looks at mapped doorbells for queues that no worker polls: the admin
// queue, and those that a messenger runs. It is an engine.Source of its own.
type doorbellWatch struct {
	h        *host
	worker   worker
	seen     [pageSize / doorbellStride]uint32
	attached bool
}

// watchDoorbells begins in mode Mmap, unwatchDoorbells ends.
func (h *host) watchDoorbells() {
	if h.c.cfg.Doorbells != Mmap || h.held {
		return
	}
	if h.watch == nil {
		h.watch = &doorbellWatch{h: h, worker: h.pick()}
	}
	if !h.watch.attached {
		h.watch.attached = true
		h.watch.worker.Attach(h.watch, engine.SourceOptions{Silent: true, MaxSleep: h.c.cfg.IdlePoll})
	}
}

func (h *host) unwatchDoorbells() {
	if w := h.watch; w != nil && w.attached {
		w.attached = false
		w.worker.Detach(w)
	}
}

// Poll looks at the doorbells of the admin queue, and of queues by message.
func (w *doorbellWatch) Poll() int {
	n := w.queue(0)
	if w.h.messengers.Load() > 0 {
		for i := 1; i <= w.h.c.cfg.Queues; i++ {
			n += w.queue(i)
		}
	}
	return n
}

// queue tells whoever serves queue i if a doorbell is not what he saw last, and counts
// the doorbells that have moved.
func (w *doorbellWatch) queue(i int) (moved int) {
	if q := w.h.sqs[i].Load(); q != nil && w.news(&q.ring, &moved) {
		w.tell(q.cq, q)
	}
	if q := w.h.cqs[i].Load(); q != nil && w.news(&q.ring, &moved) {
		w.tell(q, nil)
	}
	return moved
}

func (w *doorbellWatch) news(q *ring, moved *int) bool {
	v := dma.Load32(w.h.c.doorbells.page, q.doorbell)
	if seen := &w.seen[q.doorbell/doorbellStride]; v != *seen {
		*seen = v
		*moved++
	}
	return v != q.looked.Load()
}

func (w *doorbellWatch) tell(cq *compQueue, q *subQueue) {
	if cq.id == 0 {
		w.h.signal()
	} else if o := cq.owner.Load(); o != nil && o.messages {
		o.kick(q)
	}
}

// Arm has nothing to ask for: the doorbells are silent.
func (w *doorbellWatch) Arm() bool { return false }

// Disarm has nothing to undo.
func (w *doorbellWatch) Disarm() {}

// Fault reports a defect; the page of the doorbells is the controller's own.
func (w *doorbellWatch) Fault(v any, stack []byte) { w.h.fault(v, stack) }
