package nvme

import (
	"errors"
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// Registrations, the reservation and what was not read of the notifications move, and who
// was kept away still is.
func TestReservationsMove(t *testing.T) {
	guests, queues := sharing(t, 2, rig{})
	guests[1].identifyAs(0)
	queues[0].mustReserve(reg(0, 10))
	queues[1].mustReserve(reg(1, 11), acq(1, 11, spec.ExclusiveAccess))
	queues[1].mustReserve(pre(1, 11, 11, spec.WriteExclusiveRegistrantsOnly))
	queues[0].mustReserve(unreg(0, 10))
	n := guests[0].move(rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	q := n.queue(queues[0])
	r, _, st := q.report(1024, true)
	want := []spec.RegisteredController{{Controller: spec.NoController, Holder: true, Key: 11}}
	if !st.OK() || r.Type != spec.WriteExclusiveRegistrantsOnly || r.Generation != 4 || !slices.Equal(r.Controllers, want) {
		t.Errorf("%v, %+v", st, r)
	}
	if st := q.status(rw(spec.NVMWrite, 1, 0, 1, n.alloc(1), 0)); st != conflict {
		t.Error(st)
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 1, n.alloc(1), 0)); !st.OK() {
		t.Error(st)
	}
	if x := n.reservationNotice(); x != (spec.ReservationNotice{Count: 1, Type: spec.NoticeReservationReleased, NSID: 1}) {
		t.Errorf("%+v", x)
	}
	q.mustReserve(reg(0, 10)) // with the identifier that has moved along
	if r, _, _ := q.report(1024, true); len(r.Controllers) != 2 || r.Controllers[1].Host != (spec.HostID{1, 15: 1}) {
		t.Errorf("%+v", r)
	}
}

func TestImpossibleReservationsAreRefused(t *testing.T) {
	g := newGuest(t, rig{})
	g.enable()
	q := g.createQueue(1, 16)
	q.mustReserve(reg(0, 10), acq(0, 10, spec.WriteExclusive))
	stream := g.saved()
	me := registrantState{Controller: 1, Key: 3}
	holder := &registrantState{Controller: 1}
	var many []registrantState
	for i := range byte(maxRegistrants + 1) {
		many = append(many, registrantState{Host: spec.HostID{i + 1}, Key: 1})
	}
	for _, c := range []struct {
		name string
		list []reservationState
	}{
		{"no such namespace", []reservationState{{NSID: 2}}},
		{"namespace 0", []reservationState{{}}},
		{"a namespace twice", []reservationState{{NSID: 1}, {NSID: 1}}},
		{"type 7", []reservationState{{NSID: 1, Type: 7, Holder: holder, Registrants: []registrantState{me}}}},
		{"no registrant", []reservationState{{NSID: 1, Type: 1, Holder: holder}}},
		{"no registrant of all", []reservationState{{NSID: 1, Type: 5}}},
		{"no holder", []reservationState{{NSID: 1, Type: 1, Registrants: []registrantState{me}}}},
		{"a holder of what all hold", []reservationState{{NSID: 1, Type: 5, Holder: holder, Registrants: []registrantState{me}}}},
		{"a holder without a reservation", []reservationState{{NSID: 1, Holder: holder, Registrants: []registrantState{me}}}},
		{"a holder that is no registrant", []reservationState{{NSID: 1, Type: 1, Holder: &registrantState{Controller: 2}, Registrants: []registrantState{me}}}},
		{"a registrant twice", []reservationState{{NSID: 1, Registrants: []registrantState{me, me}}}},
		{"a registrant without a key", []reservationState{{NSID: 1, Registrants: []registrantState{{Controller: 1}}}}},
		{"nobody", []reservationState{{NSID: 1, Registrants: []registrantState{{Key: 1}}}}},
		{"a host with a controller", []reservationState{{NSID: 1, Registrants: []registrantState{{Host: spec.HostID{1}, Controller: 1, Key: 1}}}}},
		{"controller 9", []reservationState{{NSID: 1, Registrants: []registrantState{{Controller: 9, Key: 1}}}}},
		{"many registrants", []reservationState{{NSID: 1, Registrants: many}}},
	} {
		state, rest := split(t, stream)
		enter(state, []any{"Reservations"}, c.list)
		if err := g.load(join(t, state, rest)); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, n := range []noticeState{
		{1, []spec.ReservationNotice{{Count: 2, Type: 1}}},
		{1, []spec.ReservationNotice{{Count: 0, Type: 1}}},
		{9, []spec.ReservationNotice{{Count: 2, Type: 1}, {Count: 2, Type: 1}}},
		{9, []spec.ReservationNotice{{Count: 2, Type: 4}}},
		{9, []spec.ReservationNotice{{Count: 2}}},
		{9, []spec.ReservationNotice{{Count: 2, Type: 1, Available: 1}}},
		{1000, make([]spec.ReservationNotice, maxNotices+1)},
	} {
		state, rest := split(t, stream)
		enter(state, []any{"Notices"}, n)
		if err := g.load(join(t, state, rest)); !errors.Is(err, ErrState) {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if err := g.load(stream); err != nil {
		t.Error(err)
	}
	g.lock(false)
	if r, _, st := q.report(1024, true); !st.OK() || r.Type != spec.WriteExclusive || len(r.Controllers) != 1 {
		t.Errorf("%v, %+v", st, r)
	}
}
