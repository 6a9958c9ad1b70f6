package nvme

import (
	"fmt"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// noticeState is the reservation notification log of a controller.
type noticeState struct {
	Count   uint64
	Waiting []spec.ReservationNotice `json:",omitempty"`
}

// reservationState is the reservation of a namespace as it stands in files and streams.
type reservationState struct {
	NSID        uint32
	Type        uint8
	Holder      *registrantState `json:",omitempty"` // unless all registrants hold it; without key
	Registrants []registrantState
	Generation  uint32
	Persistent  bool
}

// registrantState is a host, by its identifier or by the controller that has none.
type registrantState struct {
	Host       spec.HostID
	Controller uint16 `json:",omitempty"`
	Key        uint64 `json:",omitempty"`
}

func (r *reservation) state(nsid uint32) reservationState {
	st := reservationState{NSID: nsid, Type: uint8(r.kind), Generation: r.generation, Persistent: r.persistent}
	if r.kind != 0 && !r.kind.AllRegistrants() {
		st.Holder = &registrantState{Host: r.holder.host, Controller: r.holder.controller}
	}
	for _, g := range r.registrants {
		st.Registrants = append(st.Registrants, registrantState{g.host, g.controller, g.key})
	}
	return st
}

// load is the inverse of state, if commands could have led there.
func (st *reservationState) load() (*reservation, error) {
	r := &reservation{kind: spec.ReservationType(st.Type), generation: st.Generation, persistent: st.Persistent}
	if len(st.Registrants) > maxRegistrants || r.kind != 0 && (!r.kind.Valid() || len(st.Registrants) == 0) {
		return nil, fmt.Errorf("reservation of type %d with %d registrants on namespace %d", st.Type, len(st.Registrants), st.NSID)
	}
	for _, g := range st.Registrants {
		by := reserver{g.Host, g.Controller}
		if (g.Host == spec.HostID{}) != (g.Controller != 0) || g.Controller > MaxControllers || g.Key == 0 || r.find(by) != nil {
			return nil, fmt.Errorf("registrant %+v of namespace %d", g, st.NSID)
		}
		r.registrants = append(r.registrants, registrant{by, g.Key})
	}
	if (st.Holder != nil) != (r.kind != 0 && !r.kind.AllRegistrants()) {
		return nil, fmt.Errorf("holder %+v of a reservation of type %d on namespace %d", st.Holder, st.Type, st.NSID)
	}
	if st.Holder != nil {
		r.holder = reserver{st.Holder.Host, st.Holder.Controller}
		if r.find(r.holder) == nil {
			return nil, fmt.Errorf("holder %+v of namespace %d is no registrant", st.Holder, st.NSID)
		}
	}
	return r, nil
}

// reservationStates are those of the controller's namespaces on which there is something to
// tell.
func (c *Controller) reservationStates() (list []reservationState) {
	r := &c.subsystem.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ns := range c.active() {
		if have := &ns.reservation; have.generation > 0 || have.persistent {
			list = append(list, have.state(ns.id))
		}
	}
	return list
}

func (c *Controller) noticeState() noticeState {
	r := &c.subsystem.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.associations[c.index].log
	return noticeState{l.count, slices.Clone(l.waiting)}
}

// checkReservations says whether states could be those of this controller.
func (c *Controller) checkReservations(list []reservationState, notices *noticeState) error {
	last := uint32(0)
	for i := range list {
		st := &list[i]
		if st.NSID <= last || c.namespace(st.NSID) == nil {
			return fmt.Errorf("reservation of namespace %d", st.NSID)
		}
		last = st.NSID
		if _, err := st.load(); err != nil {
			return err
		}
	}
	if len(notices.Waiting) > maxNotices {
		return fmt.Errorf("%d reservation notifications", len(notices.Waiting))
	}
	count := uint64(0)
	for _, n := range notices.Waiting {
		if n.Count <= count || n.Count > notices.Count || n.Available != 0 ||
			n.Type < spec.NoticeRegistrationPreempted || n.Type > spec.NoticeReservationPreempted {
			return fmt.Errorf("reservation notification %+v of %d", n, notices.Count)
		}
		count = n.Count
	}
	return nil
}

// loadReservations takes over states that were checked.
func (c *Controller) loadReservations(list []reservationState, notices *noticeState) {
	s := c.subsystem
	s.reservations.mu.Lock()
	defer s.reservations.mu.Unlock()
	for _, ns := range c.active() {
		next := &reservation{}
		for i := range list {
			if list[i].NSID == ns.id {
				next, _ = list[i].load()
			}
		}
		if s.establish(ns.allocation, next) != nil {
			ns.reservation = *next // it holds all the same, but no longer than the process
			s.bar(ns.allocation)
		}
	}
	s.reservations.associations[c.index].log = noticeLog{notices.Count, notices.Waiting}
}
