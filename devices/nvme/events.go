package nvme

import (
	"math/bits"

	"vfiouser/devices/nvme/spec"
)

// maxAsyncEvents is how many Asynchronous Event Requests may wait (AERL + 1).
const maxAsyncEvents = 4

// event is something that the host is told of by an asynchronous event; several of a
// kind are one.
type event uint

const (
	eventInvalidDoorbell event = iota // a doorbell of a queue that does not exist
	eventInvalidTail                  // an impossible value in a doorbell
	eventTemperature                  // a threshold was crossed
	eventNamespaces                   // a namespace has come, gone, or changed
	eventFirmware                     // another firmware is activated without a reset
	eventSanitize                     // a sanitize operation has ended
	eventTelemetry                    // the controller has collected telemetry
	eventReservation                  // there is a reservation notification
)

// offeredEvents are the events that the host can ask for: critical warnings, and OAES.
const offeredEvents = spec.AsyncConfigHealth | offeredNotices

const offeredNotices = spec.AsyncConfigNamespace | spec.AsyncConfigFirmware | spec.AsyncConfigTelemetry | spec.AsyncConfigEndurance

var eventResults = [...]spec.AsyncResult{
	eventInvalidDoorbell: spec.NewAsyncResult(spec.AsyncError, spec.AsyncInvalidDoorbell, spec.LogErrors),
	eventInvalidTail:     spec.NewAsyncResult(spec.AsyncError, spec.AsyncInvalidTail, spec.LogErrors),
	eventTemperature:     spec.NewAsyncResult(spec.AsyncHealth, spec.AsyncTemperature, spec.LogSmart),
	eventNamespaces:      spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncNamespaceChanged, spec.LogChangedNS),
	eventFirmware:        spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncFirmwareActivation, spec.LogFirmware),
	eventSanitize:        spec.NewAsyncResult(spec.AsyncIOEvent, spec.AsyncSanitizeCompleted, spec.LogSanitize),
	eventTelemetry:       spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncTelemetryChanged, spec.LogControllerTelemetry),
	eventReservation:     spec.NewAsyncResult(spec.AsyncIOEvent, spec.AsyncReservation, spec.LogReservation),
}

// eventEnabled has the bits of Asynchronous Event Configuration without which an event is
// not reported (Base 2.0, 5.27.1.8); 0: it always is.
var eventEnabled = [len(eventResults)]uint32{
	eventNamespaces: spec.AsyncConfigNamespace,
	eventFirmware:   spec.AsyncConfigFirmware,
	eventTelemetry:  spec.AsyncConfigTelemetry,
}

// tell raises an event in every attached host. Any goroutine.
func (s *Subsystem) tell(ev event) {
	s.live.Lock()
	defer s.live.Unlock()
	for h := range s.live.hosts {
		h.events.Or(1 << ev)
		h.signal()
	}
}

// raise records that the host did something wrong with the doorbells of a queue. Any
// goroutine; it does not block.
func (h *host) raise(ev event, qid uint16) {
	h.c.errors.add(spec.ErrorEntry{SQID: qid, CID: noLocation, Status: spec.InvalidField, Parameter: noLocation})
	h.events.Or(1 << ev)
	h.signal()
}

// asyncEvents is the Asynchronous Event Requests that wait.
type asyncEvents struct {
	waiting []uint16 // command identifiers
	masked  uint32   // event types that were reported and whose log was not read, a bit each
	pages   [8]uint8 // those logs, by type
}

func (a *asyncEvents) reset() { *a = asyncEvents{} }

// unmask lets events be reported again whose log this is.
func (a *asyncEvents) unmask(page uint8) {
	for kind, p := range a.pages {
		if p == page {
			a.masked &^= 1 << kind
		}
	}
}

// take removes the request with this command identifier.
func (a *asyncEvents) take(cid uint16) bool {
	for i, c := range a.waiting {
		if c == cid {
			a.waiting = append(a.waiting[:i], a.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// asyncEvent is Asynchronous Event Request (Base 1.4, 5.2).
func (h *host) asyncEvent(e *spec.SubmissionEntry) (spec.Status, uint32) {
	if len(h.aer.waiting) >= maxAsyncEvents {
		return spec.AsyncEventLimitExceeded | spec.StatusDNR, 0
	}
	h.aer.waiting = append(h.aer.waiting, e.CID)
	return notYet, 0
}

// deliverEvents completes requests with the events that have come.
func (h *host) deliverEvents() {
	for todo := h.events.Load(); todo != 0 && len(h.aer.waiting) > 0; todo &= todo - 1 {
		ev := bits.TrailingZeros32(todo)
		r := eventResults[ev]
		if on := eventEnabled[ev]; on != 0 && h.number(spec.FeatAsyncEvents)&on == 0 {
			h.events.And(^uint32(1 << ev))
			continue
		}
		if h.aer.masked&(1<<r.Type()) != 0 {
			continue
		}
		h.events.And(^uint32(1 << ev))
		h.aer.masked |= 1 << r.Type()
		h.aer.pages[r.Type()] = r.LogPage()
		cid := h.aer.waiting[0]
		h.aer.waiting = h.aer.waiting[1:]
		h.completeAdmin(cid, spec.Success, uint32(r))
	}
}
