package nvme

import (
	"slices"

	"vfiouser/devices/nvme/spec"
)

// createCQ is Create I/O Completion Queue (Base 1.4, 5.3).
func (h *host) createCQ(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id, size := uint16(e.CDW10), e.CDW10>>16+1
	vector := uint16(e.CDW11 >> 16)
	switch {
	case !h.validID(id) || h.cqs[id].Load() != nil:
		return spec.InvalidQueueID | spec.StatusDNR, 0
	case h.c.regs.config().IOCQES() != spec.CompletionEntryExponent, !h.validSize(size):
		return spec.InvalidQueueSize | spec.StatusDNR, 0
	case int(vector) >= h.c.vectors():
		return spec.InvalidInterruptVector | spec.StatusDNR, 0
	}
	if st := checkRing(e); !st.OK() {
		return st, 0
	}
	q := newCompQueue(h, id, size, e.PRP1)
	h.interrupts.bind(q, vector, e.CDW11&queueInterrupt != 0)
	h.c.doorbells.clear(q.doorbell)
	h.addCQ(q)
	return spec.Success, 0
}

// createSQ is Create I/O Submission Queue (Base 1.4, 5.4).
func (h *host) createSQ(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id, size := uint16(e.CDW10), e.CDW10>>16+1
	cqid := uint16(e.CDW11 >> 16)
	switch {
	case !h.validID(id) || h.sqs[id].Load() != nil, !h.validID(cqid):
		return spec.InvalidQueueID | spec.StatusDNR, 0
	case h.cqs[cqid].Load() == nil:
		return spec.CompletionQueueInvalid | spec.StatusDNR, 0
	case h.c.regs.config().IOSQES() != spec.SubmissionEntryExponent, !h.validSize(size):
		return spec.InvalidQueueSize | spec.StatusDNR, 0
	}
	if st := checkRing(e); !st.OK() {
		return st, 0
	}
	cq := h.cqs[cqid].Load()
	q := newSubQueue(h, id, size, e.PRP1, cq)
	if h.weighted { // else the field is ignored
		q.priority = priority(e.CDW11 >> 1 & 3)
	}
	h.c.doorbells.clear(q.doorbell)
	h.change(cq, func() { cq.sqs = append(cq.sqs, q) })
	h.sqs[id].Store(q)
	h.queues.Add(1)
	return spec.Success, 0
}

// Bits of CDW11 of the two commands.
const (
	queueContiguous = 1 << 0
	queueInterrupt  = 1 << 1
)

func (h *host) validID(id uint16) bool { return id >= 1 && int(id) <= h.c.cfg.Queues }

func (h *host) validSize(entries uint32) bool {
	return entries >= 2 && entries <= uint32(h.c.cap.MQES())+1
}

// checkRing checks the memory of a new queue: contiguous, as CAP.CQR says.
func checkRing(e *spec.SubmissionEntry) spec.Status {
	switch {
	case e.PRP1%pageSize != 0:
		return spec.InvalidPRPOffset | spec.StatusDNR
	case e.CDW11&queueContiguous == 0:
		return spec.InvalidField | spec.StatusDNR
	}
	return spec.Success
}

// deleteSQ is Delete I/O Submission Queue (Base 1.4, 5.6). What was fetched and has not begun
// is aborted, the rest completes before the queue is gone.
func (h *host) deleteSQ(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id := uint16(e.CDW10)
	if !h.validID(id) || h.sqs[id].Load() == nil {
		return spec.InvalidQueueID | spec.StatusDNR, 0
	}
	q := h.sqs[id].Swap(nil)
	h.queues.Add(-1)
	q.deleted.Store(true)
	h.cancel(q, spec.AbortSQDeletion, everyCommand)
	var drained chan struct{}
	h.change(q.cq, func() {
		q.cq.sqs = slices.DeleteFunc(q.cq.sqs, func(x *subQueue) bool { return x == q })
		if q.inflight > 0 && q.cq.group != nil {
			drained = make(chan struct{})
			q.drained = drained
		}
	})
	h.await(drained)
	return spec.Success, 0
}

// await waits for c, unless the client leaves or something more urgent is asked for: a
// host that leaves no room for completions must still be able to reset.
func (h *host) await(c <-chan struct{}) {
	if c == nil {
		return
	}
	defer h.signal() // what woke this up is still to be done
	for {
		select {
		case <-c:
			return
		case <-h.s.Context().Done():
			return
		case <-h.wake:
			if h.urgent() {
				return
			}
		}
	}
}

// deleteCQ is Delete I/O Completion Queue (Base 1.4, 5.5).
func (h *host) deleteCQ(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id := uint16(e.CDW10)
	if !h.validID(id) || h.cqs[id].Load() == nil {
		return spec.InvalidQueueID | spec.StatusDNR, 0
	}
	q := h.cqs[id].Load()
	if len(q.sqs) > 0 {
		return spec.InvalidQueueDeletion | spec.StatusDNR, 0
	}
	h.removeCQ(q)
	h.interrupts.forget(q)
	return spec.Success, 0
}

// offersShadow says whether the host may configure shadow doorbells. A client lowers the
// interrupt pin when its guest touches the device, so with a pin doorbells must not be
// silent.
func (h *host) offersShadow() bool {
	return h.c.cfg.Doorbells == Shadow && !h.interrupts.pinBased()
}

// doorbellBufferConfig is Doorbell Buffer Config (Base 1.4, 5.7): from now on the
// doorbells of I/O queues are in guest memory.
func (h *host) doorbellBufferConfig(e *spec.SubmissionEntry) (spec.Status, uint32) {
	switch {
	case !h.offersShadow():
		return spec.InvalidOpcode | spec.StatusDNR, 0
	case e.PRP1%pageSize != 0, e.PRP2%pageSize != 0:
		return spec.InvalidField | spec.StatusDNR, 0
	}
	h.stopQueues()
	h.shadow = shadow{set: true, doorbell: e.PRP1, events: e.PRP2}
	h.startQueues()
	h.place()
	h.kickAll()
	return spec.Success, 0
}
