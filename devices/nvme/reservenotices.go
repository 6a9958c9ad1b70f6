package nvme

import (
	"slices"

	"vfiouser/devices/nvme/spec"
)

// maxNotices is how many reservation notifications wait to be read for each controller.
// Further ones are lost, which their count tells.
const maxNotices = 64

// noticeLog is the reservation notification log of a controller (Base 2.0, 5.16.1.24).
type noticeLog struct {
	count   uint64 // notifications since the reset
	waiting []spec.ReservationNotice
}

func (l *noticeLog) add(kind uint8, nsid uint32) {
	l.count++
	if len(l.waiting) < maxNotices {
		l.waiting = append(l.waiting, spec.ReservationNotice{Count: l.count, Type: kind, NSID: nsid})
	}
}

// page is the oldest notification, which stays.
func (l *noticeLog) page() *spec.ReservationNotice {
	if len(l.waiting) == 0 {
		return &spec.ReservationNotice{}
	}
	n := l.waiting[0]
	n.Available = uint8(len(l.waiting) - 1)
	return &n
}

// notify puts notices into the logs of all controllers whose hosts they are for. The caller
// holds the mutex of the reservations.
func (s *Subsystem) notify(a *allocation, told []notice) {
	for i := range s.reservations.associations {
		x := &s.reservations.associations[i]
		if x.c == nil || x.c.namespace(a.id) == nil {
			continue
		}
		by, mask := s.reservations.reserver(x.c), x.masks[a.id]
		for _, n := range told {
			if n.to == by && mask>>n.kind&1 == 0 {
				x.log.add(n.kind, a.id)
				s.tellHostOf(x.c, eventReservation)
			}
		}
	}
}

// tellHostOf raises an event in the host of one controller.
func (s *Subsystem) tellHostOf(c *Controller, ev event) {
	s.live.Lock()
	defer s.live.Unlock()
	for h := range s.live.hosts {
		if h.c == c {
			h.events.Or(1 << ev)
			h.signal()
		}
	}
}

// reservationPage is the log page.
func (h *host) reservationPage() []byte {
	r := &h.c.subsystem.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	return page(spec.ReservationLogSize, r.associations[h.c.index].log.page())
}

// reservationRead takes the notification that was read away. If there are more the event
// comes again.
func (h *host) reservationRead() {
	s := h.c.subsystem
	s.reservations.mu.Lock()
	defer s.reservations.mu.Unlock()
	l := &s.reservations.associations[h.c.index].log
	if len(l.waiting) > 0 {
		l.waiting = slices.Delete(l.waiting, 0, 1)
	}
	if len(l.waiting) > 0 {
		s.tellHostOf(h.c, eventReservation)
	}
}
