package nvme

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// reservationSubject is what is kept in the state directory: a list of the reservations that
// persist through a loss of power, which is what the end of the process is.
const reservationSubject = "reservations"

// keepsReservations says whether reservations can outlive the process.
func (s *Subsystem) keepsReservations() bool { return s.cfg.StateDir != "" }

// reservationCapabilities is RESCAP.
func (s *Subsystem) reservationCapabilities() uint8 {
	if s.keepsReservations() {
		return spec.ReservationsAllTypes | spec.ReservationsIgnoreKey | spec.ReservationsPersist
	}
	return spec.ReservationsAllTypes | spec.ReservationsIgnoreKey
}

// lasting is what is left of a reservation after a loss of power: hosts without identifier
// are not known again, and generations begin anew.
func (r *reservation) lasting() *reservation {
	next := r.clone()
	for _, g := range r.registrants {
		if g.controller != 0 {
			next.unregister(g.reserver)
		}
	}
	next.generation = 0
	return next
}

// keepReservation keeps the reservation of a namespace for the next process, or nothing any
// more if it does not persist. The caller holds the mutex of the reservations.
func (s *Subsystem) keepReservation(a *allocation, next *reservation) error {
	kept := maps.Clone(s.reservations.kept)
	if next.persistent {
		if kept == nil {
			kept = make(map[uint32]reservationState)
		}
		kept[a.id] = next.lasting().state(a.id)
	} else {
		delete(kept, a.id)
	}
	if reflect.DeepEqual(kept, s.reservations.kept) {
		return nil
	}
	list := make([]reservationState, 0, len(kept))
	for _, id := range slices.Sorted(maps.Keys(kept)) {
		list = append(list, kept[id])
	}
	if err := s.state.keep(reservationSubject, list); err != nil {
		s.cfg.Logger.Error("a reservation was not written", "namespace", a.id, "err", err)
		return err
	}
	s.reservations.kept = kept
	return nil
}

// recallReservations brings back what was kept, for the namespaces that are there.
func (s *Subsystem) recallReservations() error {
	var list []reservationState
	if _, err := s.state.recall(reservationSubject, &list); err != nil {
		return err
	}
	s.reservations.kept = make(map[uint32]reservationState)
	last := uint32(0)
	for i := range list {
		st := &list[i]
		r, err := st.load()
		if err == nil && (st.NSID <= last || st.NSID > MaxNamespaces || !st.Persistent) {
			err = fmt.Errorf("reservation of namespace %d", st.NSID)
		}
		if err != nil {
			return fmt.Errorf("nvme: state: %w", err)
		}
		last = st.NSID
		if ns := s.namespaces[st.NSID-1]; ns != nil {
			ns.reservation = *r
			s.reservations.kept[st.NSID] = *st
		}
	}
	return nil
}

// forgetReservation ends the reservation of a namespace that is going.
func (s *Subsystem) forgetReservation(a *allocation) {
	s.reservations.mu.Lock()
	defer s.reservations.mu.Unlock()
	_ = s.establish(a, &reservation{}) // a failure was logged
}

func (h *host) keepsReservations() bool { return h.c.subsystem.keepsReservations() }

// applyPersistence is the Reservation Persistence feature (Base 2.0, 5.27.1.27), which
// Reservation Register changes too.
func applyPersistence(h *host, part uint32, v *featureValue) spec.Status {
	ns := h.c.namespace(part)
	if ns == nil {
		return badField
	}
	return h.c.subsystem.reserve(h.c, ns.allocation, func(r *reservation, _ reserver) ([]notice, spec.Status) {
		r.persistent = v.Number != 0
		return nil, spec.Success
	})
}

func currentPersistence(h *host, part uint32, v featureValue) featureValue {
	s := h.c.subsystem
	s.reservations.mu.Lock()
	defer s.reservations.mu.Unlock()
	v.Number = 0
	if ns := h.c.namespace(part); ns != nil && ns.reservation.persistent {
		v.Number = 1
	}
	return v
}
