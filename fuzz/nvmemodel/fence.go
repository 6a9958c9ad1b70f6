package nvmemodel

import (
	"bytes"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

// shared is a namespace of both hosts, nil if there is none.
func (m *model) shared() *namespace {
	n := m.anyNamespace()
	if n == nil || len(m.hosts) < 2 || !n.attached[0] || !n.attached[1] {
		return nil
	}
	return n
}

// registerWith registers a host with a key, whatever it had.
func (m *model) registerWith(h int, n *namespace, key uint64) {
	m.reservationCommandOf(h, n.id, n, spec.NVMReservationRegister, func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) ([]spec.Status, func()) {
		keys.Other = key
		e.CDW10 = spec.ReplaceKey | spec.ReservationIgnoreKey
		return nil, func() { n.register(who, key) }
	})
}

// acquireAs has a registrant reserve a namespace that nobody has reserved.
func (m *model) acquireAs(h int, n *namespace, kind spec.ReservationType) {
	m.reservationCommandOf(h, n.id, n, spec.NVMReservationAcquire, func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) ([]spec.Status, func()) {
		keys.Current = n.keys[who]
		e.CDW10 = spec.AcquireReservation | uint32(kind)<<spec.ReservationTypeShift
		return nil, func() { n.hold(who, kind) }
	})
}

// reserve has the hosts register for a namespace, one of them reserve it, and both use it.
func (m *model) reserve() {
	n := m.shared()
	if n == nil {
		return
	}
	for h := range m.hosts {
		if !m.s.Odds(4) {
			m.registerWith(h, n, uint64(1+h))
		}
	}
	if h := m.anyHost(); n.kind == 0 && n.registered(m.reserver(h)) {
		m.acquireAs(h, n, spec.ReservationType(1+m.s.Intn(6)))
	}
	for range 4 {
		h := m.anyHost()
		p := m.commandFor(h, n.id, n)
		p.queue = m.openQueue(h)
		m.d.Start(h, p.queue, []*Command{p.Command})
		m.d.Wait(h)
		m.settle([]*plan{p}, outcome{})
	}
}

// fence has a host preempt another one that is writing, and abort what it does. What it reads then is
// what there is after all commands of the other one have ended.
func (m *model) fence() {
	n := m.shared()
	victim := m.anyHost()
	winner := 1 - victim
	if n == nil || n.kind != 0 || n.protect || m.reserver(0) == m.reserver(1) {
		return
	}
	m.registerWith(winner, n, 1)
	m.registerWith(victim, n, 2)
	m.acquireAs(winner, n, choice.Pick(m.s, spec.WriteExclusiveRegistrantsOnly, spec.ExclusiveAccessRegistrantsOnly))
	var list []*plan
	var commands []*Command
	queue := m.openQueue(victim)
	for range 1 + m.s.Intn(8) {
		where := m.anySpan(n)
		if !n.has(where) {
			continue
		}
		where.n = min(where.n, 8)
		p := &plan{host: victim, queue: queue, ns: n, spans: []span{where}, Command: &Command{}}
		p.Entry = spec.SubmissionEntry{Opcode: choice.Pick[uint8](m.s, spec.NVMWrite, spec.NVMWrite, spec.NVMWriteZeroes, spec.NVMDatasetManagement), NSID: n.id}
		switch p.Entry.Opcode {
		case spec.NVMWrite:
			m.newValues(p)
			p.setRange(where)
		case spec.NVMWriteZeroes:
			p.setRange(where)
		default:
			p.Data = make([]byte, spec.DSMRangeSize)
			(&spec.DSMRange{LBA: where.lba, Blocks: uint32(where.n)}).Put(p.Data)
			p.Entry.CDW11 = spec.DSMDeallocate
		}
		list, commands = append(list, p), append(commands, p.Command)
	}
	if len(list) == 0 {
		return
	}
	m.openQueue(winner)
	m.d.Start(victim, queue, commands)
	m.reservationCommandOf(winner, n.id, n, spec.NVMReservationAcquire, func(n *namespace, who reserver, e *spec.SubmissionEntry, keys *spec.ReservationKeys) ([]spec.Status, func()) {
		keys.Current, keys.Other = n.keys[who], 2
		e.CDW10 = spec.AcquireAbort | uint32(n.kind)<<spec.ReservationTypeShift
		return m.preempt(n, who, n.kind, 2)
	})
	before := m.contents(winner, n)
	m.d.Wait(victim)
	if after := m.contents(winner, n); !bytes.Equal(before, after) {
		m.fatalf("namespace %d has changed after host %d was preempted", n.id, victim)
	}
	m.settle(list, outcome{errors: []spec.Status{spec.ReservationConflict, spec.AbortPreempted}})
}

// contents reads a namespace, without looking at what it holds.
func (m *model) contents(h int, n *namespace) (all []byte) {
	q := m.openQueue(h)
	for lba := uint64(0); lba < n.blocks(); lba += 8 {
		s := span{lba, min(8, n.blocks()-lba)}
		p := &plan{Command: &Command{Entry: spec.SubmissionEntry{Opcode: spec.NVMRead, NSID: n.id}, Data: make([]byte, s.n<<n.shift)}}
		p.setRange(s)
		m.d.Start(h, q, []*Command{p.Command})
		m.d.Wait(h)
		if p.Status.OK() {
			all = append(all, p.Data...)
		}
	}
	return all
}
