package nvmemodel

import (
	"vfiouser/devices/nvme/spec"
)

// pair is Compare and Write of the same blocks.
type pair [2]*plan

func (m *model) newPair(h int, ns *namespace, where span) (p pair) {
	for i, opcode := range []uint8{spec.NVMCompare, spec.NVMWrite} {
		p[i] = &plan{host: h, ns: ns, spans: []span{where}}
		p[i].Command = &Command{Entry: spec.SubmissionEntry{Opcode: opcode, NSID: ns.id, Flags: spec.FuseFirst}}
		if i == 1 {
			p[i].Entry.Flags = spec.FuseSecond
		}
		p[i].setRange(where)
	}
	return p
}

// anyPlaceToWrite is a short range of a namespace that a host can write.
func (m *model) anyPlaceToWrite(h int) (ns *namespace, where span) {
	active := m.activeNamespaces(h)
	if len(active) == 0 {
		return nil, where
	}
	ns = active[m.s.Intn(len(active))]
	where = m.anySpan(ns)
	where.n = min(where.n, 8)
	if !ns.has(where) || !ns.mayWrite(m.reserver(h)) || ns.protect {
		return nil, where
	}
	return ns, where
}

func (m *model) startPair(p pair) {
	p[0].queue = m.openQueue(p[0].host)
	p[1].queue = p[0].queue
	m.d.Start(p[0].host, p[0].queue, []*Command{p[0].Command, p[1].Command})
}

// compareAndWrite runs a fused pair.
func (m *model) compareAndWrite() {
	h := m.anyHost()
	ns, where := m.anyPlaceToWrite(h)
	if ns == nil {
		return
	}
	p := m.newPair(h, ns, where)
	m.valuesToCompare(p[0])
	m.newValues(p[1])
	m.startPair(p)
	m.d.Wait(h)
	m.settlePair(p)
}

func (m *model) settlePair(p pair) {
	if st := p[0].Status; p[0].Done && !st.OK() {
		p[1].errors = []spec.Status{spec.AbortFailedFused}
	}
	m.settle(p[:1], outcome{})
	m.settle(p[1:], outcome{})
}

// contest has several hosts, or queues, compare the same blocks with what they hold and write
// them: one of them wins, as nobody comes between the two halves of a pair.
func (m *model) contest() {
	ns, where := m.anyPlaceToWrite(m.anyHost())
	if ns == nil {
		return
	}
	for i := range where.n {
		if c := ns.cells[where.lba+i]; len(c) > 1 || c[0].bad {
			return
		}
	}
	var pairs []pair
	for range 2 + m.s.Intn(4) {
		h := m.anyHost()
		if !ns.attached[h] || !ns.mayWrite(m.reserver(h)) {
			continue
		}
		p := m.newPair(h, ns, where)
		for i := range where.n {
			p[0].values = append(p[0].values, ns.cells[where.lba+i][0].stamp)
		}
		p[0].putValues()
		m.newValues(p[1])
		pairs = append(pairs, p)
	}
	for _, p := range pairs {
		m.startPair(p)
	}
	for h := range m.hosts {
		m.d.Wait(h)
	}
	// The winner was first: what the other ones have compared is what he has written.
	won := -1
	for i, p := range pairs {
		if p[0].Done && p[0].Status.OK() {
			if won >= 0 {
				m.fatalf("pairs %d and %d at %v have found the same", won, i, where)
			}
			won = i
		}
	}
	switch {
	case won >= 0:
		m.settlePair(pairs[won])
	case len(pairs) > 0:
		m.fatalf("no pair at %v has found what there is", where)
	}
	for i, p := range pairs {
		if i != won {
			m.settlePair(p)
		}
	}
}
