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
		h.watch.worker.Attach(h.watch, engine.SourceOptions{Silent: true})
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
	n := 0
	if w.changed(sqDoorbell(0)) || w.changed(cqDoorbell(0)) {
		w.h.signal()
		n++
	}
	if w.h.queues.Load() == 0 || w.h.messengers.Load() == 0 {
		return n
	}
	for i := 1; i <= w.h.c.cfg.Queues; i++ {
		if q := w.h.sqs[i].Load(); q != nil && w.changed(sqDoorbell(q.id)) {
			q.cq.kick(q)
			n++
		}
		if q := w.h.cqs[i].Load(); q != nil && w.changed(cqDoorbell(q.id)) {
			q.kick(nil)
			n++
		}
	}
	return n
}

func (w *doorbellWatch) changed(off int) bool {
	v := dma.Load32(w.h.c.doorbells.page, off)
	seen := &w.seen[off/doorbellStride]
	if v == *seen {
		return false
	}
	*seen = v
	return true
}

// Arm has nothing to ask for: the doorbells are silent.
func (w *doorbellWatch) Arm() bool { return false }

// Disarm has nothing to undo.
func (w *doorbellWatch) Disarm() {}

// Fault reports a defect; the page of the doorbells is the controller's own.
func (w *doorbellWatch) Fault(v any, stack []byte) { w.h.fault(v, stack) }
