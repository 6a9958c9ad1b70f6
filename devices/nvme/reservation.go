package nvme

import (
	"slices"

	"vfiouser/devices/nvme/spec"
)

// maxRegistrants bounds the registrants of a namespace: a host may register under any
// number of names.
const maxRegistrants = 32

// reserver is who registers and reserves: a host by its identifier, through whichever
// controllers it uses. A controller whose Host Identifier is 0 is a host of its own.
type reserver struct {
	host       spec.HostID
	controller uint16 // 0 if there is a host identifier
}

// registrant is a host with the key that it has registered.
type registrant struct {
	reserver
	key uint64
}

// reservation is what hosts have registered for one namespace, and the reservation that is
// held on it (Base 2.0, 8.19). It is state and rules, without I/O and locks.
type reservation struct {
	kind        spec.ReservationType // 0: none is held
	holder      reserver             // unless all registrants hold it
	registrants []registrant         // in the order of their registration
	generation  uint32
	persistent  bool // PTPL
}

// notice is what a host is to be told.
type notice struct {
	to   reserver
	kind uint8
}

const conflict = spec.ReservationConflict

func (r *reservation) find(by reserver) *registrant {
	for i := range r.registrants {
		if r.registrants[i].reserver == by {
			return &r.registrants[i]
		}
	}
	return nil
}

// holds says whether by holds the reservation, if there is one.
func (r *reservation) holds(by reserver) bool {
	if r.kind.AllRegistrants() {
		return r.find(by) != nil
	}
	return r.kind != 0 && r.holder == by
}

// mayWrite and mayRead are the columns of the figure of what commands do in the presence of
// a reservation.
func (r *reservation) mayWrite(by reserver) bool {
	return r.kind == 0 || r.holds(by) || r.kind.RegistrantsOnly() && r.find(by) != nil
}

func (r *reservation) mayRead(by reserver) bool { return !r.kind.Exclusive() || r.mayWrite(by) }

// register is Reservation Register.
func (r *reservation) register(by reserver, action uint8, ignoreKey bool, keys spec.ReservationKeys) ([]notice, spec.Status) {
	mine := r.find(by)
	var told []notice
	switch action {
	case spec.RegisterKey:
		switch {
		case keys.Other == 0:
			return nil, badField
		case mine != nil && mine.key != keys.Other:
			return nil, conflict
		case mine == nil && len(r.registrants) >= maxRegistrants:
			return nil, spec.InternalError
		case mine == nil:
			r.registrants = append(r.registrants, registrant{by, keys.Other})
		}
	case spec.UnregisterKey:
		if mine == nil || !ignoreKey && mine.key != keys.Current {
			return nil, conflict
		}
		told = r.unregister(by)
	case spec.ReplaceKey:
		switch {
		case keys.Other == 0:
			return nil, badField
		case !ignoreKey && (mine == nil || mine.key != keys.Current):
			return nil, conflict
		case mine == nil && len(r.registrants) >= maxRegistrants:
			return nil, spec.InternalError
		case mine == nil:
			r.registrants = append(r.registrants, registrant{by, keys.Other})
		default:
			mine.key = keys.Other
		}
	default:
		return nil, badField
	}
	r.generation++
	return told, spec.Success
}

// unregister takes a registrant away, and the reservation with the last one that held it.
func (r *reservation) unregister(by reserver) []notice {
	held, kind := r.holds(by), r.kind
	r.registrants = slices.DeleteFunc(r.registrants, func(g registrant) bool { return g.reserver == by })
	if !held || kind.AllRegistrants() && len(r.registrants) > 0 {
		return nil
	}
	r.kind, r.holder = 0, reserver{}
	if !kind.RegistrantsOnly() {
		return nil
	}
	return r.tellOthers(nil, by, spec.NoticeReservationReleased)
}

// acquire is Reservation Acquire.
func (r *reservation) acquire(by reserver, action uint8, kind spec.ReservationType, keys spec.ReservationKeys) ([]notice, spec.Status) {
	mine := r.find(by)
	switch {
	case action > spec.AcquireAbort || !kind.Valid():
		return nil, badField
	case mine == nil || mine.key != keys.Current:
		return nil, conflict
	case action != spec.AcquireReservation:
		return r.preempt(by, kind, keys.Other)
	case r.kind == 0:
		r.hold(by, kind)
	case !r.holds(by) || r.kind != kind:
		return nil, conflict
	}
	return nil, spec.Success
}

func (r *reservation) hold(by reserver, kind spec.ReservationType) {
	r.kind, r.holder = kind, by
	if kind.AllRegistrants() {
		r.holder = reserver{}
	}
}

// preempt takes registrants away by their key, and the reservation from its holder if that
// is one of them, or all hold it and the key is 0.
func (r *reservation) preempt(by reserver, kind spec.ReservationType, key uint64) ([]notice, spec.Status) {
	old := r.kind
	all := old.AllRegistrants() && key == 0
	holder := r.find(r.holder)
	takes := all || old != 0 && !old.AllRegistrants() && holder != nil && holder.key == key
	var gone []reserver
	for _, g := range r.registrants {
		if all || g.key == key {
			gone = append(gone, g.reserver)
		}
	}
	switch {
	case key == 0 && old != 0 && !all:
		return nil, badField
	case len(gone) == 0:
		return nil, conflict
	}
	r.generation++
	var told []notice
	if takes {
		r.hold(by, kind)
		gone = slices.DeleteFunc(gone, func(g reserver) bool { return g == by })
	}
	for _, g := range gone {
		if g != by {
			told = append(told, notice{g, spec.NoticeRegistrationPreempted})
		}
		r.unregister(g) // releases nothing that anybody is to be told of
	}
	if takes && kind != old {
		told = r.tellOthers(told, by, spec.NoticeReservationReleased)
	}
	return told, spec.Success
}

// release is Reservation Release.
func (r *reservation) release(by reserver, action uint8, kind spec.ReservationType, key uint64) ([]notice, spec.Status) {
	mine := r.find(by)
	switch {
	case action > spec.ReleaseClear:
		return nil, badField
	case mine == nil || mine.key != key:
		return nil, conflict
	case action == spec.ReleaseClear:
		told := r.tellOthers(nil, by, spec.NoticeReservationPreempted)
		r.kind, r.holder, r.registrants = 0, reserver{}, nil
		r.generation++
		return told, spec.Success
	case !r.holds(by):
		return nil, spec.Success
	case r.kind != kind:
		return nil, badField
	}
	r.kind, r.holder = 0, reserver{}
	if kind == spec.WriteExclusive || kind == spec.ExclusiveAccess {
		return nil, spec.Success
	}
	return r.tellOthers(nil, by, spec.NoticeReservationReleased), spec.Success
}

// tellOthers appends a notice to every registrant but one.
func (r *reservation) tellOthers(told []notice, but reserver, kind uint8) []notice {
	for _, g := range r.registrants {
		if g.reserver != but {
			told = append(told, notice{g.reserver, kind})
		}
	}
	return told
}
