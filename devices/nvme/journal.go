package nvme

import (
	"sync"
	"time"

	"vfiouser/devices/nvme/spec"
)

// journalSize bounds the persistent event log with its header: PELS is in units of 64 KiB.
const journalSize = 64 << 10

// snapshotPause is the time after which the log gets another snapshot of the SMART log.
const snapshotPause = time.Hour

// journal is the persistent event log (Base 2.0, 5.16.1.14). Any goroutine adds to it.
type journal struct {
	mu     sync.Mutex
	events []spec.PersistentEvent // oldest first
	bytes  int
	shot   time.Time // of the last snapshot of the SMART log
}

// recorded are the types of events that are recorded.
const recorded = 1<<spec.EventSmart | 1<<spec.EventFirmwareCommit | 1<<spec.EventTimestamp | 1<<spec.EventPowerOn |
	1<<spec.EventNamespace | 1<<spec.EventFormatStart | 1<<spec.EventFormatEnd |
	1<<spec.EventSanitizeStart | 1<<spec.EventSanitizeEnd

// add appends an event and forgets the oldest ones that find no room any more.
func (j *journal) add(e spec.PersistentEvent) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
	j.bytes += e.Size()
	drop := 0
	for ; j.bytes > journalSize-spec.PersistentEventsHeader; drop++ {
		j.bytes -= j.events[drop].Size()
	}
	j.events = append([]spec.PersistentEvent(nil), j.events[drop:]...)
}

// list is the events, newest first.
func (j *journal) list() []spec.PersistentEvent {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]spec.PersistentEvent, 0, len(j.events))
	for i := range j.events {
		list = append(list, j.events[len(j.events)-1-i])
	}
	return list
}

// load replaces the log.
func (j *journal) load(events []spec.PersistentEvent) {
	j.mu.Lock()
	j.events, j.bytes = nil, 0
	j.mu.Unlock()
	for i := range events {
		j.add(events[len(events)-1-i])
	}
}

// possibleEvents says whether a log could have these events.
func possibleEvents(events []spec.PersistentEvent) bool {
	size := spec.PersistentEventsHeader
	for i := range events {
		e := &events[i]
		if e.Type >= 32 || recorded>>e.Type&1 == 0 || e.Time > maxTimestamp|timestampOrigin {
			return false
		}
		size += e.Size()
	}
	return size <= journalSize
}

// record adds an event of a controller.
func (s *Subsystem) record(c *Controller, kind, revision uint8, data []byte) {
	s.journal.add(spec.PersistentEvent{Type: kind, Revision: revision, Controller: c.id(), Time: c.clock.Load().value(), Data: data})
	s.keepEvents()
}

func (h *host) record(kind, revision uint8, data []byte) {
	h.c.subsystem.record(h.c, kind, revision, data)
}

// recordSnapshot adds the SMART log, if the last one was added a while ago.
func (h *host) recordSnapshot() {
	j, now := &h.c.subsystem.journal, time.Now()
	j.mu.Lock()
	due := j.shot.IsZero() || now.Sub(j.shot) >= snapshotPause
	if due {
		j.shot = now
	}
	j.mu.Unlock()
	if due {
		h.record(spec.EventSmart, 1, page(spec.SmartSize, h.smartPage()))
	}
}

// recordReset adds that the controller was enabled.
func (h *host) recordReset() {
	ms := uint64(time.Since(h.c.smart.start).Milliseconds())
	h.record(spec.EventPowerOn, 1, page(spec.PowerOnEventSize, &spec.PowerOnEvent{
		Firmware: h.c.subsystem.firmware.running(), Controller: h.c.id(),
		PowerCycle: uint32(h.smartPage().PowerCycles), PowerOn: ms, Time: h.c.clock.Load().value(),
	}))
	h.recordSnapshot()
}

// Values of LSP for the persistent event log.
const (
	readContext      = 0
	establishContext = 1
	releaseContext   = 2
)

// persistentEvents is the log as it was when the host began to read it.
func (h *host) persistentEvents(r *logRequest) ([]byte, spec.Status) {
	switch r.specific {
	case establishContext:
		if h.eventContext != nil {
			return nil, spec.CommandSequenceError | spec.StatusDNR
		}
		h.recordSnapshot()
		h.eventContext = h.persistentEventPage()
	case readContext:
		if h.eventContext == nil {
			return nil, spec.CommandSequenceError | spec.StatusDNR
		}
	case releaseContext:
		h.eventContext = nil
		return nil, spec.Success
	default:
		return nil, badField
	}
	return h.eventContext, spec.Success
}

func (h *host) persistentEventPage() []byte {
	c, s := h.c, h.smartPage()
	serial, model, _ := c.subsystem.names()
	events := c.subsystem.journal.list()
	l := &spec.PersistentEventLog{
		Timestamp: h.c.clock.Load().value(), PowerOnHours: s.PowerOnHours, PowerCycles: s.PowerCycles,
		VendorID: c.cfg.VendorID, SubsystemVendorID: c.cfg.VendorID,
		Serial: serial, Model: model, SubNQN: nqn(serial),
		Supported: recorded, Events: events,
	}
	return page(l.Size(), l)
}
