package nvmemodel

import (
	"maps"

	"vfiouser/devices/nvme/spec"
)

// queue deletes a queue, or asks for one that cannot be.
func (m *model) queue() {
	h := m.anyHost()
	q := m.s.Intn(Queues)
	if m.hosts[h].queues[q] {
		m.logf("queue %d of host %d is deleted", q, h)
		m.d.DeleteQueue(h, q)
		m.hosts[h].queues[q] = false
		return
	}
	opcode := []uint8{spec.AdminCreateCQ, spec.AdminCreateSQ, spec.AdminDeleteCQ, spec.AdminDeleteSQ}[m.s.Intn(4)]
	st, _ := m.d.Admin(h, spec.SubmissionEntry{Opcode: opcode, CDW10: 0xff | 15<<16, CDW11: 1}, nil)
	m.expect(h, "a queue that cannot be", st, spec.InvalidQueueID)
}

func (m *model) restart() { m.restartHost(m.anyHost()) }

// restartHost restarts a controller, or all of them.
func (m *model) restartHost(h int) {
	how := Restart(m.s.Intn(int(restarts)))
	m.logf("host %d restarts: %d", h, how)
	m.d.Restart(h, how)
	for i, x := range m.hosts {
		if i != h && how != SubsystemReset {
			continue
		}
		x.queues = [Queues]bool{}
		x.current = maps.Clone(x.saved)
		m.becomes(i, 0)
		m.forgetController(i)
	}
}

// migrate moves the host to another server, if all that there is can go along.
func (m *model) migrate() {
	if len(m.hosts) > 1 {
		return
	}
	var list []Namespace
	for _, n := range m.list {
		if !n.attached[0] || n.pooled {
			return
		}
		list = append(list, n.config())
	}
	m.logf("the host migrates")
	m.d.Migrate(list)
}

// errorLog compares the newest entry with the last error of the host.
func (m *model) errorLog() {
	h := m.anyHost()
	data := make([]byte, spec.ErrorEntrySize)
	e := spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, NSID: spec.BroadcastNSID, CDW10: spec.LogErrors | (spec.ErrorEntrySize/4-1)<<16}
	st, _ := m.d.Admin(h, e, data)
	m.expect(h, "error log", st)
	var entry spec.ErrorEntry
	if entry.Get(data); m.hosts[h].failed != 0 && (entry.Count == 0 || entry.Status.Code() != m.hosts[h].failed) {
		m.fatalf("host %d: the newest error is %+v, want %v", h, entry, m.hosts[h].failed)
	}
}

// check reads all that there is.
func (m *model) check() {
	m.t.Helper()
	for h := range m.hosts {
		q := m.openQueue(h)
		for _, n := range m.activeNamespaces(h) {
			if !n.mayRead(m.reserver(h)) {
				continue
			}
			for lba := uint64(0); lba < n.blocks(); lba += 8 {
				s := span{lba, min(8, n.blocks()-lba)}
				p := &plan{host: h, queue: q, ns: n, spans: []span{s}}
				p.Command = &Command{Entry: spec.SubmissionEntry{Opcode: spec.NVMRead, NSID: n.id}, Data: make([]byte, s.n<<n.shift)}
				p.setRange(s)
				m.d.Start(h, q, []*Command{p.Command})
				m.d.Wait(h)
				m.settle([]*plan{p}, outcome{})
			}
		}
	}
	for range m.hosts {
		m.look()
	}
}
