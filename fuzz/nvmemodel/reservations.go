package nvmemodel

import (
	"slices"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

// reserver is who has registered: 1 and 2 are host identifiers, 11 and 12 are the controllers of
// hosts 0 and 1 while they have none; 0 is nobody.
type reserver byte

// reservation is what hosts have registered for a namespace, and what they hold (Base 2.0, 8.19).
type reservation struct {
	keys       map[reserver]uint64
	kind       spec.ReservationType // 0: none is held
	holder     reserver             // unless all registrants hold it
	generation uint32
}

func (m *model) reserver(h int) reserver {
	if id := m.hosts[h].id; id != 0 {
		return reserver(id)
	}
	return reserver(11 + h)
}

func (r *reservation) registered(who reserver) bool { return r.keys[who] != 0 }

func (r *reservation) holds(who reserver) bool {
	if r.kind.AllRegistrants() {
		return r.registered(who)
	}
	return r.kind != 0 && r.holder == who
}

func (r *reservation) mayWrite(who reserver) bool {
	return r.kind == 0 || r.holds(who) || r.kind.RegistrantsOnly() && r.registered(who) || r.kind.AllRegistrants() && r.registered(who)
}

func (r *reservation) mayRead(who reserver) bool {
	switch r.kind {
	case spec.ExclusiveAccess, spec.ExclusiveAccessRegistrantsOnly, spec.ExclusiveAccessAllRegistrants:
		return r.mayWrite(who)
	}
	return true
}

// forget takes a registrant away, with the reservation if nobody is left who holds it.
func (r *reservation) forget(who reserver) {
	held := r.holds(who)
	delete(r.keys, who)
	if held && (!r.kind.AllRegistrants() || len(r.keys) == 0) {
		r.kind, r.holder = 0, 0
	}
}

// becomes gives a controller another host identifier. What it has registered without one ends.
func (m *model) becomes(h int, id byte) {
	if m.hosts[h].id != id {
		m.hosts[h].id = id
		m.forgetController(h)
	}
}

func (m *model) forgetController(h int) {
	for _, n := range m.list {
		n.forget(reserver(11 + h))
	}
}

// reservationRule is what the model says of a reservation command of a host that has the namespace: it
// fills it in, and tells the errors, or what the command does.
type reservationRule func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) (errors []spec.Status, effect func())

func (m *model) reservationCommand(opcode uint8, run reservationRule) {
	h := m.anyHost()
	id, n := m.anyID()
	m.reservationCommandOf(h, id, n, opcode, run)
}

// reservationCommandOf runs a reservation command for a namespace; n is nil if there is none.
func (m *model) reservationCommandOf(h int, id uint32, n *namespace, opcode uint8, run reservationRule) {
	p := &plan{host: h, Command: &Command{
		Entry: spec.SubmissionEntry{Opcode: opcode, NSID: id}, Data: make([]byte, spec.ReservationKeysSize),
	}}
	effect := func() {}
	if n == nil || !n.attached[h] {
		p.errors = []spec.Status{absent(id)}
	} else {
		var keys spec.ReservationKeys
		p.errors, effect = run(n, m.reserver(h), &p.Entry, &keys)
		keys.Put(p.Data)
		if opcode == spec.NVMReservationRelease {
			p.Data = p.Data[:spec.ReservationKeySize]
		}
		m.logf("reserver %d: CDW10 %#x, keys %x; before: %+v", m.reserver(h), p.Entry.CDW10, keys, n.reservation)
	}
	p.queue = m.openQueue(h)
	m.d.Start(h, p.queue, []*Command{p.Command})
	m.d.Wait(h)
	m.settle([]*plan{p}, outcome{})
	// settle asks for an error only if there is one.
	if p.Status.OK() && len(p.errors) == 0 {
		effect()
	} else if len(p.errors) == 0 {
		m.fatalf("reservation command %+v: %v", p.Entry, p.Status)
	}
}

// anyKey is one of few, often the right one.
func (m *model) anyKey(n *namespace, who reserver) uint64 {
	if m.s.Odds(4) {
		return uint64(m.s.Intn(4))
	}
	return n.keys[who]
}

func (m *model) register() {
	m.reservationCommand(spec.NVMReservationRegister, func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) (errors []spec.Status, effect func()) {
		action := choice.Pick[uint32](m.s, spec.RegisterKey, spec.RegisterKey, spec.UnregisterKey, spec.ReplaceKey, 3)
		ignore := m.s.Odds(4)
		keys.Current, keys.Other = m.anyKey(n, who), uint64(m.s.Intn(4))
		e.CDW10 = action
		if ignore {
			e.CDW10 |= spec.ReservationIgnoreKey
		}
		mine, registered := n.keys[who]
		conflict := []spec.Status{spec.ReservationConflict}
		switch {
		case action > spec.ReplaceKey, action != spec.UnregisterKey && keys.Other == 0:
			return []spec.Status{spec.InvalidField}, nil
		case action == spec.RegisterKey && registered && mine != keys.Other:
			return conflict, nil
		case action == spec.UnregisterKey && (!registered || !ignore && mine != keys.Current):
			return conflict, nil
		case action == spec.ReplaceKey && !ignore && (!registered || mine != keys.Current):
			return conflict, nil
		case action == spec.UnregisterKey:
			return nil, func() { n.forget(who); n.generation++ }
		}
		return nil, func() { n.register(who, keys.Other) }
	})
}

func (m *model) acquire() {
	m.reservationCommand(spec.NVMReservationAcquire, func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) (errors []spec.Status, effect func()) {
		action := choice.Pick[uint32](m.s, spec.AcquireReservation, spec.AcquireReservation, spec.AcquirePreempt, spec.AcquireAbort)
		kind := spec.ReservationType(1 + m.s.Intn(7))
		keys.Current, keys.Other = m.anyKey(n, who), uint64(m.s.Intn(4))
		e.CDW10 = action | uint32(kind)<<spec.ReservationTypeShift
		conflict, invalid := []spec.Status{spec.ReservationConflict}, []spec.Status{spec.InvalidField}
		switch {
		case kind > spec.ExclusiveAccessAllRegistrants:
			return invalid, nil
		case !n.registered(who) || n.keys[who] != keys.Current:
			return conflict, nil
		case action == spec.AcquireReservation && n.kind != 0 && (!n.holds(who) || n.kind != kind):
			return conflict, nil
		case action == spec.AcquireReservation:
			return nil, func() {
				if n.kind == 0 {
					n.hold(who, kind)
				}
			}
		}
		return m.preempt(n, who, kind, keys.Other)
	})
}

func (r *reservation) hold(who reserver, kind spec.ReservationType) {
	r.kind, r.holder = kind, who
	if kind.AllRegistrants() {
		r.holder = 0
	}
}

func (r *reservation) register(who reserver, key uint64) {
	if r.keys == nil {
		r.keys = map[reserver]uint64{}
	}
	r.keys[who] = key
	r.generation++
}

// preempt is the table of what Preempt does (Base 2.0, 8.19.7).
func (m *model) preempt(n *namespace, who reserver, kind spec.ReservationType, key uint64) ([]spec.Status, func()) {
	var gone []reserver
	for other, k := range n.keys {
		if k == key || key == 0 && n.kind.AllRegistrants() {
			gone = append(gone, other)
		}
	}
	takes := n.kind != 0 && (n.kind.AllRegistrants() && key == 0 || !n.kind.AllRegistrants() && n.keys[n.holder] == key && key != 0)
	switch {
	case key == 0 && n.kind != 0 && !n.kind.AllRegistrants():
		return []spec.Status{spec.InvalidField}, nil
	case len(gone) == 0:
		return []spec.Status{spec.ReservationConflict}, nil
	}
	return nil, func() {
		n.generation++
		if takes {
			n.hold(who, kind)
		}
		for _, other := range gone {
			if other != who || !takes {
				n.forget(other)
			}
		}
	}
}

func (m *model) release() {
	m.reservationCommand(spec.NVMReservationRelease, func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) (errors []spec.Status, effect func()) {
		action := uint32(m.s.Intn(3))
		kind := n.kind
		if kind == 0 || m.s.Odds(4) {
			kind = spec.ReservationType(1 + m.s.Intn(6))
		}
		keys.Current = m.anyKey(n, who)
		e.CDW10 = action | uint32(kind)<<spec.ReservationTypeShift
		switch {
		case action > spec.ReleaseClear:
			return []spec.Status{spec.InvalidField}, nil
		case !n.registered(who) || n.keys[who] != keys.Current:
			return []spec.Status{spec.ReservationConflict}, nil
		case action == spec.ReleaseClear:
			return nil, func() {
				n.kind, n.holder, n.keys = 0, 0, nil
				n.generation++
			}
		case !n.holds(who):
			return nil, func() {}
		case n.kind != kind:
			return []spec.Status{spec.InvalidField}, nil
		}
		return nil, func() { n.kind, n.holder = 0, 0 }
	})
}

// report compares Reservation Report with the model.
func (m *model) report() {
	h := m.anyHost()
	active := m.activeNamespaces(h)
	if len(active) == 0 {
		return
	}
	n := active[m.s.Intn(len(active))]
	const size = 512
	p := &plan{host: h, Command: &Command{
		Entry: spec.SubmissionEntry{Opcode: spec.NVMReservationReport, NSID: n.id, CDW10: size/4 - 1}, Data: make([]byte, size),
	}}
	p.queue = m.openQueue(h)
	m.d.Start(h, p.queue, []*Command{p.Command})
	m.d.Wait(h)
	m.settle([]*plan{p}, outcome{})
	var have spec.ReservationStatus
	have.Get(p.Data, false)
	if !p.Status.OK() || have.Generation != n.generation || have.Type != n.kind {
		m.fatalf("namespace %d: %v, reservation %+v, want %+v", n.id, p.Status, have, n.reservation)
	}
	told := map[reserver]bool{}
	for _, c := range have.Controllers {
		who := reserver(c.Host[0])
		if who == 0 {
			who = reserver(10 + c.Controller)
		}
		told[who] = true
		if c.Key != n.keys[who] || c.Holder != n.holds(who) {
			m.fatalf("namespace %d: registrant %d is %+v, want %+v", n.id, who, c, n.reservation)
		}
	}
	for who := range n.keys {
		if !told[who] {
			m.fatalf("namespace %d: registrant %d is missing in %+v", n.id, who, have)
		}
	}
}

// anybodyReserves says whether a reservation is held.
func (m *model) anybodyReserves() bool {
	return slices.ContainsFunc(m.list, func(n *namespace) bool { return n.kind != 0 })
}
