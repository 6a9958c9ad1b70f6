package nvme

import (
	"time"

	"vfiouser/devices/nvme/spec"
)

// driveState is what a controller takes along when it moves to another process: all that
// its host can see or has told it. The data path is held while it is taken, so what was
// in flight has ended, and its completions are in guest memory or in the lists here.
type driveState struct {
	Drive     driveIdentity
	Registers registerState
	Doorbells []uint32 // as the host wrote them: SQ and CQ of queue 0, 1, …
	Features  featureState
	Events    eventState
	Health    healthState
	Journal   []spec.PersistentEvent
	// EventContext is what the host is reading of the journal.
	EventContext []byte `json:",omitempty"`
	Telemetry    telemetry
	Slots        firmwareState
	SelfTest     selfTestState
	Protection   map[uint32]uint32 `json:",omitempty"` // by namespace, spec.WriteProtect*
	Sanitize     sanitizeState
	Download     download
	Admin        *adminState // nil: the controller is not ready
	Shadow       *shadowState
	// Uncorrectable has for each namespace the first block and the number of blocks of the
	// runs that cannot be read; it is empty if there are none.
	Uncorrectable [][]uint64         `json:",omitempty"`
	Reservations  []reservationState `json:",omitempty"` // in ascending order of the namespaces
	Notices       noticeState
	CQs           []compQueueState
	SQs           []subQueueState
}

// driveIdentity is in what source and destination must agree, and, from Serial on, what
// the destination takes over.
type driveIdentity struct {
	Queues, QueueEntries, MaxTransfer int
	Shadow                            bool // Doorbell Buffer Config is offered
	Namespaces                        []namespaceIdentity

	Serial, Model, Firmware string
}

type namespaceIdentity struct {
	ID         uint32
	BlockSize  int
	FLBAS, DPS uint8 // the format, as Identify Namespace has it
	Blocks     uint64
	ReadOnly   bool
	// Private: the contents follow in the stream, as nobody else has them.
	Private bool
}

type registerState struct {
	CC       uint32
	CSTS     uint32
	AQA      uint32
	ASQ, ACQ uint64
	INTMS    uint32
}

type featureState struct {
	Values    []valueState // those that are not the defaults
	Saved     []valueState
	Timestamp uint64 // ms, as the host would read it
	Set       bool   // by the host
}

type eventState struct {
	Waiting []uint16 // command identifiers of Asynchronous Event Requests
	Masked  uint32
	Pages   [8]uint8 // whose reading unmasks, by type
	Raised  uint32
	Changed []uint32 `json:",omitempty"` // the changed namespace list
}

type healthState struct {
	Reads, Writes           uint64
	BytesRead, BytesWritten uint64
	UnsafeShutdowns         uint64
	MediaErrors             uint64
	PowerCycles             uint64
	Powered                 time.Duration // how long there was power
	Busy                    time.Duration // how long there were commands
	Errors                  uint64        // count of the newest entry of the error log
	Entries                 []byte        // the error log, newest entry first
}

type adminState struct {
	Shutdown bool
	SQ       subQueueState
	CQ       compQueueState
	Unposted []resultState
}

type shadowState struct{ Doorbells, Events uint64 }

type compQueueState struct {
	ID, Vector       uint16
	Size             uint32
	Base             uint64
	Interrupt        bool
	Head, Tail, Used uint32
	Phase            bool
	Waiting          []resultState // completed, and no room yet
}

type subQueueState struct {
	ID, CQ uint16
	Size   uint32
	Base   uint64
	Head   uint32
	// Priority is QPRIO.
	Priority uint8 `json:",omitempty"`
}

// resultState is a completion that is not posted.
type resultState struct {
	SQ, CID, Status uint16
	Result          uint32
}

func (h *host) state() *driveState {
	c := h.c
	st := &driveState{
		Drive:     c.identity(),
		Registers: c.regs.state(),
		Features:  h.featureState(),
		Events:    eventState{h.aer.waiting, h.aer.masked, h.aer.pages, h.events.Load(), h.changed.list()},
		Health:    c.health(),
		Journal:   c.subsystem.journal.list(),

		EventContext: h.eventContext,
		Telemetry:    c.telemetry,
		Slots:        c.subsystem.firmware.state(),
		SelfTest:     c.subsystem.selfTest.state(),
		Protection:   c.subsystem.protection(),
		Sanitize:     c.subsystem.sanitize.get(),
		Download:     h.download,

		Uncorrectable: c.subsystem.uncorrectable.state(c),
		Reservations:  c.reservationStates(),
		Notices:       c.noticeState(),
	}
	for off := 0; off < 2*(c.cfg.Queues+1)*doorbellStride; off += doorbellStride {
		st.Doorbells = append(st.Doorbells, c.doorbells.load(off))
	}
	if h.admin.open {
		st.Admin = h.admin.state()
	}
	if h.shadow.set {
		st.Shadow = &shadowState{h.shadow.doorbell, h.shadow.events}
	}
	for i := 1; i < len(h.cqs); i++ {
		if q := h.cqs[i].Load(); q != nil {
			st.CQs = append(st.CQs, q.state())
		}
		if q := h.sqs[i].Load(); q != nil {
			st.SQs = append(st.SQs, q.state())
		}
	}
	return st
}

// identity is what a stream of this controller begins with.
func (c *Controller) identity() driveIdentity {
	serial, model, firmware := c.subsystem.names()
	d := driveIdentity{
		Queues: c.cfg.Queues, QueueEntries: c.cfg.QueueEntries, MaxTransfer: c.cfg.MaxTransfer,
		Shadow: c.cfg.Doorbells == Shadow,
		Serial: serial, Model: model, Firmware: firmware,
	}
	for _, ns := range c.active() {
		d.Namespaces = append(d.Namespaces, namespaceIdentity{ns.id, 1 << ns.shift, ns.format.flbas(), ns.format.dps(), ns.blocks, ns.backend.Info().ReadOnly, ns.info.Private})
	}
	return d
}

func (r *registers) state() registerState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return registerState{uint32(r.cc), uint32(r.csts), uint32(r.aqa), r.asq, r.acq, r.intms}
}

func (h *host) featureState() featureState {
	f := &h.features
	return featureState{h.stateOf(f.values), h.stateOf(h.c.saved), h.c.clock.Load().now(), h.c.clock.Load().set}
}

func (c *Controller) health() healthState {
	l := &c.smart
	return healthState{
		Reads: l.reads.Load(), Writes: l.writes.Load(),
		BytesRead: l.bytesRead.Load(), BytesWritten: l.bytesWritten.Load(),
		UnsafeShutdowns: l.unsafeShutdowns.Load(), MediaErrors: l.mediaErrors.Load(),
		PowerCycles: l.powerCycles.Load(), Powered: l.powered(), Busy: l.busy.total(),
		Errors: c.errors.total(), Entries: c.errors.page(),
	}
}

func (a *admin) state() *adminState {
	st := &adminState{Shutdown: a.shutdown, SQ: a.sq.state(), CQ: a.cq.state()}
	for _, r := range a.unposted {
		st.Unposted = append(st.Unposted, resultState{0, r.cid, uint16(r.st), r.dw0})
	}
	return st
}

func (q *compQueue) state() compQueueState {
	st := compQueueState{
		ID: q.id, Vector: q.vector, Size: q.size, Base: q.base, Interrupt: q.interrupt,
		Head: q.head, Tail: q.tail, Used: q.used, Phase: q.phase != 0,
	}
	for c := q.waiting.head; c != nil; c = c.next {
		st.Waiting = append(st.Waiting, resultState{SQ: c.queue.id, CID: c.entry.CID, Status: uint16(c.result)})
	}
	return st
}

func (q *subQueue) state() subQueueState {
	return subQueueState{ID: q.id, CQ: q.cq.id, Size: q.size, Base: q.base, Head: q.head, Priority: uint8(q.priority)}
}

// status is the status as a queue has it.
func (r resultState) status() spec.Status { return spec.Status(r.Status) }
