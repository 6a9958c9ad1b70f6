package nvme

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// ErrState is found by errors.Is in every error about a state that cannot be loaded: it
// is of another kind of drive, or damaged.
var ErrState = errors.New("nvme: state cannot be loaded")

func stateError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrState, fmt.Sprintf(format, args...))
}

// check says whether the state is one that this controller could be in.
func (h *host) check(st *driveState) error {
	c := h.c
	mine, theirs := c.identity(), st.Drive
	mine.Serial, mine.Model, mine.Firmware = theirs.Serial, theirs.Model, theirs.Firmware
	switch {
	case mine.Queues != theirs.Queues || mine.QueueEntries != theirs.QueueEntries ||
		mine.MaxTransfer != theirs.MaxTransfer || mine.Shadow != theirs.Shadow:
		return stateError("the drives differ: %d queues of %d entries, transfers of %d bytes, shadow doorbells %v here, "+
			"%d, %d, %d, %v there", mine.Queues, mine.QueueEntries, mine.MaxTransfer, mine.Shadow,
			theirs.Queues, theirs.QueueEntries, theirs.MaxTransfer, theirs.Shadow)
	case !slices.Equal(mine.Namespaces, theirs.Namespaces):
		return stateError("the namespaces differ: %+v here, %+v there", mine.Namespaces, theirs.Namespaces)
	case len(st.Doorbells) != 2*(c.cfg.Queues+1):
		return stateError("%d doorbells", len(st.Doorbells))
	case st.Features.Timestamp > maxTimestamp:
		return stateError("timestamp %d", st.Features.Timestamp)
	case len(st.Events.Waiting) > maxAsyncEvents:
		return stateError("%d Asynchronous Event Requests", len(st.Events.Waiting))
	case st.Events.Raised >= 1<<len(eventResults):
		return stateError("unknown events %#x", st.Events.Raised)
	case slices.ContainsFunc(st.Events.Changed, func(id uint32) bool { return id == 0 || id > MaxNamespaces }):
		return stateError("changed namespaces %d", st.Events.Changed)
	case !possibleEvents(st.Journal):
		return stateError("impossible persistent events")
	case len(st.EventContext) > journalSize || !st.Telemetry.possible():
		return stateError("impossible log pages")
	case !possibleProtection(st.Protection) || !st.Sanitize.possible():
		return stateError("impossible protection or sanitize operation")
	case !st.SelfTest.possible():
		return stateError("impossible self-tests")
	case !st.Slots.possible() || !st.Download.possible():
		return stateError("impossible firmware")
	case !st.Health.possible():
		return stateError("error log of %d bytes, power for %v", len(st.Health.Entries), st.Health.Powered)
	case !c.subsystem.uncorrectable.possible(c, st.Uncorrectable):
		return stateError("impossible uncorrectable blocks")
	}
	if err := c.checkReservations(st.Reservations, &st.Notices); err != nil {
		return stateError("%v", err)
	}
	names := SubsystemConfig{Serial: theirs.Serial, Model: theirs.Model, Firmware: theirs.Firmware}
	if err := names.checkNames(); err != nil {
		return stateError("%v", err)
	}
	if _, err := h.loadValues(st.Features.Values); err != nil {
		return err
	}
	if _, err := h.loadSaved(st.Features.Saved); err != nil {
		return err
	}
	return h.checkQueues(st)
}

// checkQueues is check for what Create I/O Queue and the registers would have checked.
func (h *host) checkQueues(st *driveState) error {
	ready := spec.CSTS(st.Registers.CSTS).RDY()
	switch {
	case ready != (st.Admin != nil) && !(ready && spec.CSTS(st.Registers.CSTS).CFS()):
		return stateError("ready %v, admin queues %v", ready, st.Admin != nil)
	case st.Admin == nil && (len(st.CQs) > 0 || len(st.SQs) > 0 || st.Shadow != nil || len(st.Events.Waiting) > 0):
		return stateError("queues without an admin queue")
	case st.Admin == nil:
		return nil
	case !spec.CC(st.Registers.CC).EN():
		return stateError("a controller that is not enabled has queues") // no reset could end that
	case st.Shadow != nil && (!st.Drive.Shadow || (st.Shadow.Doorbells|st.Shadow.Events)%pageSize != 0):
		return stateError("shadow doorbells %+v", *st.Shadow)
	}
	a := st.Admin
	if !adminPossible(adminConfig{spec.CC(st.Registers.CC), spec.AQA(st.Registers.AQA), st.Registers.ASQ, st.Registers.ACQ}) ||
		a.SQ.ID != 0 || a.CQ.ID != 0 || a.SQ.CQ != 0 || a.SQ.Priority != 0 || len(a.CQ.Waiting) > 0 || a.CQ.Vector != 0 {
		return stateError("impossible admin queues")
	}
	if len(a.Unposted) > int(a.SQ.Size)+maxAsyncEvents+maxBackground {
		return stateError("%d admin commands without completion", len(a.Unposted))
	}
	cqs := map[uint16]*compQueueState{0: &a.CQ}
	sqs := map[uint16]*subQueueState{0: &a.SQ}
	for i := range st.CQs {
		q := &st.CQs[i]
		if !h.validID(q.ID) || cqs[q.ID] != nil || !h.validSize(q.Size) || int(q.Vector) >= h.c.vectors() {
			return stateError("completion queue %+v", *q)
		}
		cqs[q.ID] = q
	}
	for i := range st.SQs {
		q := &st.SQs[i]
		if !h.validID(q.ID) || sqs[q.ID] != nil || !h.validSize(q.Size) || q.CQ == 0 || q.Priority >= uint8(priorities) || cqs[q.CQ] == nil {
			return stateError("submission queue %+v", *q)
		}
		sqs[q.ID] = q
	}
	for _, q := range sqs {
		if q.Size < 2 || q.Size > maxEntries || q.Base%pageSize != 0 || q.Head >= q.Size {
			return stateError("submission queue %+v", *q)
		}
	}
	for _, q := range cqs {
		if !q.possible() {
			return stateError("completion queue %d of %d entries at %#x: head %d, tail %d, %d used",
				q.ID, q.Size, q.Base, q.Head, q.Tail, q.Used)
		}
		inflight := map[uint16]uint32{}
		for _, r := range q.Waiting {
			sq := sqs[r.SQ]
			if sq == nil || r.SQ == 0 || sq.CQ != q.ID || inflight[r.SQ] >= sq.Size {
				return stateError("completion queue %d: command %d of submission queue %d", q.ID, r.CID, r.SQ)
			}
			inflight[r.SQ]++
		}
	}
	return nil
}

func (q *compQueueState) possible() bool {
	if q.Size < 2 || q.Size > maxEntries || q.Base%pageSize != 0 || q.Head >= q.Size || q.Tail >= q.Size {
		return false
	}
	r := ring{size: q.Size}
	return q.Used == r.distance(q.Head, q.Tail)
}

// apply makes the controller, which was reset, what a checked state says.
func (h *host) apply(st *driveState) {
	c := h.c
	c.adopt(&st.Drive)
	for i, v := range st.Doorbells {
		dma.Store32(c.doorbells.page, i*doorbellStride, v)
	}
	h.applyFeatures(&st.Features)
	h.aer = asyncEvents{waiting: st.Events.Waiting, masked: st.Events.Masked, pages: st.Events.Pages}
	h.events.Store(st.Events.Raised)
	for _, id := range st.Events.Changed {
		h.changed.add(id)
	}
	c.applyHealth(&st.Health)
	c.subsystem.uncorrectable.load(c, st.Uncorrectable)
	c.subsystem.journal.load(st.Journal)
	h.eventContext, c.telemetry = st.EventContext, st.Telemetry
	h.download = st.Download
	c.subsystem.firmware.load(st.Slots)
	c.loadReservations(st.Reservations, &st.Notices)
	c.subsystem.selfTest.load(c, &st.SelfTest)
	c.subsystem.loadProtection(st.Protection)
	c.subsystem.loadSanitize(c, st.Sanitize)
	if st.Shadow != nil {
		h.shadow = shadow{set: true, doorbell: st.Shadow.Doorbells, events: st.Shadow.Events}
	}
	h.weighted = spec.CC(st.Registers.CC).AMS() == spec.AMSWeighted
	if st.Admin != nil {
		h.applyAdmin(st)
		for i := range st.CQs {
			h.applyCQ(&st.CQs[i], st.SQs)
		}
	}
	h.interrupts.setMask(st.Registers.INTMS)
	c.regs.load(&st.Registers)
	h.ready.Store(st.Admin != nil)
	h.arrived = true
}

// adopt takes over the name of the drive.
func (c *Controller) adopt(d *driveIdentity) {
	s := c.subsystem
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Serial, s.cfg.Model, s.cfg.Firmware = d.Serial, d.Model, d.Firmware
	for _, ns := range s.namespaces {
		if ns != nil {
			ns.identifyBy(d.Serial)
		}
	}
}

func (r *registers) load(st *registerState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cc, r.csts, r.aqa = spec.CC(st.CC), spec.CSTS(st.CSTS), spec.AQA(st.AQA)
	r.asq, r.acq, r.intms = st.ASQ, st.ACQ, st.INTMS
}

func (h *host) applyFeatures(st *featureState) {
	f := &h.features
	// They were checked.
	f.values, _ = h.loadValues(st.Values)
	h.c.saved, _ = h.loadSaved(st.Saved)
	h.c.clock.Store(clockAt(st.Timestamp, st.Set))
	h.featuresChanged()
}

func (c *Controller) applyHealth(st *healthState) {
	l := &c.smart
	l.reads.Store(st.Reads)
	l.writes.Store(st.Writes)
	l.bytesRead.Store(st.BytesRead)
	l.bytesWritten.Store(st.BytesWritten)
	l.unsafeShutdowns.Store(st.UnsafeShutdowns)
	l.mediaErrors.Store(st.MediaErrors)
	l.powerCycles.Store(st.PowerCycles)
	l.busy.load(st.Busy)
	l.earlier.Store(int64(st.Powered - time.Since(l.start)))
	c.errors.load(st.Errors, st.Entries)
}

func (h *host) applyAdmin(st *driveState) {
	a := st.Admin
	cq := h.loadCQ(&a.CQ)
	sq := newSubQueue(h, 0, a.SQ.Size, a.SQ.Base, cq)
	sq.head = a.SQ.Head
	h.admin = admin{open: true, shutdown: a.Shutdown, sq: sq, cq: cq}
	for _, r := range a.Unposted {
		h.admin.unposted = append(h.admin.unposted, adminResult{r.CID, r.status(), r.Result})
	}
	h.cqs[0].Store(cq)
	h.sqs[0].Store(sq)
}

func (h *host) loadCQ(st *compQueueState) *compQueue {
	q := newCompQueue(h, st.ID, st.Size, st.Base)
	q.head, q.tail, q.used, q.phase = st.Head, st.Tail, st.Used, 0
	q.signalled = st.Tail
	if st.Phase {
		q.phase = phaseTag
	}
	h.interrupts.bind(q, st.Vector, st.Interrupt)
	return q
}

// applyCQ makes a completion queue and its submission queues.
func (h *host) applyCQ(st *compQueueState, sqs []subQueueState) {
	q := h.loadCQ(st)
	byID := map[uint16]*subQueue{}
	for i := range sqs {
		if s := &sqs[i]; s.CQ == st.ID {
			sq := newSubQueue(h, s.ID, s.Size, s.Base, q)
			sq.head, sq.priority = s.Head, priority(s.Priority)
			q.sqs = append(q.sqs, sq)
			byID[s.ID] = sq
		}
	}
	for _, r := range st.Waiting {
		sq := byID[r.SQ]
		c := sq.take()
		sq.start(c)
		c.entry = spec.SubmissionEntry{CID: r.CID}
		c.result = r.status()
		q.waiting.add(c)
	}
	h.addCQ(q)
	for id, sq := range byID {
		h.sqs[id].Store(sq)
		h.queues.Add(1)
	}
}

// signalArrival interrupts for all that was posted and not consumed before the move:
// whether its interrupt reached the host is not known, and one too many does no harm.
func (h *host) signalArrival() {
	if !h.arrived {
		return
	}
	h.arrived = false
	for i := range h.cqs {
		if q := h.cqs[i].Load(); q != nil && q.used > 0 {
			h.interrupts.raise(q)
		}
	}
}
