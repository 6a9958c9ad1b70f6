package nvmemodel

import (
	"vfiouser/devices/nvme/spec"
)

// severalCommands starts commands of several queues and hosts, and lets something happen while
// they are under way.
func (m *model) severalCommands() {
	var list []*plan
	for range 2 + m.s.Intn(7) {
		h := m.anyHost()
		p := m.anyCommand(h)
		p.queue = m.openQueue(h)
		list = append(list, p)
	}
	// Adjacent ones of a queue go with one doorbell.
	for i := 0; i < len(list); {
		var together []*Command
		h, q := list[i].host, list[i].queue
		for i < len(list) && list[i].host == h && list[i].queue == q && len(together) < QueueDepth-1 {
			together = append(together, list[i].Command)
			i++
		}
		m.d.Start(h, q, together)
	}
	o, end := m.meanwhileFault(list)
	for h := range m.hosts {
		m.d.Wait(h)
	}
	if end != nil {
		end()
	}
	m.settle(list, o)
}

// meanwhileFault lets something happen, and says what that allows. end undoes it.
func (m *model) meanwhileFault(list []*plan) (o outcome, end func()) {
	p := list[m.s.Intn(len(list))]
	switch m.s.Intn(16) {
	case 1, 2:
		m.logf("command %#x of host %d is to be aborted", p.Entry.Opcode, p.host)
		p.aborted = m.d.Abort(p.host, p.Command)
	case 3:
		m.logf("the memory of host %d is unmapped", p.host)
		m.d.Unmap(p.host)
		o.errors = []spec.Status{spec.DataTransferError}
		end = func() { m.d.Map(p.host) }
	case 4:
		m.logf("queue %d of host %d is deleted", p.queue, p.host)
		m.d.DeleteQueue(p.host, p.queue)
		m.hosts[p.host].queues[p.queue] = false
		o.lost, o.errors = true, []spec.Status{spec.AbortSQDeletion}
	case 5, 6:
		if len(m.hosts) > 1 && m.anybodyReserves() {
			return o, nil // who may do what would change meanwhile
		}
		o.lost, o.errors = true, []spec.Status{spec.AbortSQDeletion}
		m.restartHost(p.host)
	case 7, 8:
		m.migrate()
	case 9:
		m.formatMeanwhile(p, &o)
	case 10:
		if p.ns == nil {
			return o, nil
		}
		fail := m.d.Fail(p.ns.id, FailRead, true) && m.d.Fail(p.ns.id, FailWrite, true)
		if fail {
			m.logf("the storage of namespace %d fails", p.ns.id)
			o.errors = []spec.Status{spec.UnrecoveredRead, spec.WriteFault}
			ns := p.ns
			end = func() {
				m.d.Fail(ns.id, FailRead, false)
				m.d.Fail(ns.id, FailWrite, false)
			}
		}
	}
	return o, end
}

// formatMeanwhile formats a namespace, in the format that it has, while commands are at it.
func (m *model) formatMeanwhile(p *plan, o *outcome) {
	ns := p.ns
	if ns == nil || ns.protect || !ns.mayWrite(m.reserver(p.host)) {
		return
	}
	st, _ := m.d.Admin(p.host, formatCommand(ns.id, ns.shift), nil)
	m.expect(p.host, "format", st)
	for i := range ns.cells {
		ns.cells[i] = ns.cells[i].mayAlso(content{})
	}
	o.errors = []spec.Status{spec.FormatInProgress}
	o.erased = true
}
