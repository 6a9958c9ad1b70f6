package nvmemodel

import (
	"slices"

	"vfiouser/devices/nvme/spec"
)

// span is a range of blocks.
type span struct{ lba, n uint64 }

// plan is a command and what the model says of it.
type plan struct {
	*Command
	host, queue int
	ns          *namespace    // nil: the host has none of this number
	spans       []span        // of what it reads or changes
	values      []uint32      // stamps of the blocks that it writes or compares
	errors      []spec.Status // with one of which it must end
	aborted     bool          // as the result of Abort says
}

const (
	reads = 1 << iota
	writes
)

// access says what a command does to blocks.
func access(opcode uint8) int {
	switch opcode {
	case spec.NVMRead, spec.NVMCompare, spec.NVMVerify:
		return reads
	case spec.NVMFlush:
		return 0
	}
	return writes
}

// blockCommands are the commands that programs are made of.
var blockCommands = []uint8{
	spec.NVMWrite, spec.NVMRead, spec.NVMWrite, spec.NVMRead, spec.NVMCompare, spec.NVMWriteZeroes,
	spec.NVMWriteUncorrectable, spec.NVMVerify, spec.NVMDatasetManagement, spec.NVMFlush,
}

// anyCommand plans a command that is mostly valid. It is not started.
func (m *model) anyCommand(h int) *plan {
	id, ns := m.anyID()
	return m.commandFor(h, id, ns)
}

// commandFor is anyCommand for a namespace; ns is nil if there is none.
func (m *model) commandFor(h int, id uint32, ns *namespace) *plan {
	if ns != nil && !ns.attached[h] {
		ns = nil
	}
	p := &plan{host: h, ns: ns}
	opcode := blockCommands[m.s.Intn(len(blockCommands))]
	p.Command = &Command{Entry: spec.SubmissionEntry{Opcode: opcode, NSID: id}}
	if ns == nil {
		p.errors = []spec.Status{absent(id)}
		p.setRange(span{0, 1})
		p.Data = make([]byte, spec.IdentifySize)
		return p
	}
	where := m.anySpan(ns)
	switch opcode {
	case spec.NVMFlush:
		m.barred(p)
		return p
	case spec.NVMDatasetManagement:
		m.deallocation(p)
		return p
	}
	if opcode == spec.NVMWriteZeroes && m.s.Bool() {
		p.Entry.CDW12 |= spec.RWDeallocate
	}
	if (opcode == spec.NVMWrite || opcode == spec.NVMWriteZeroes) && m.s.Odds(4) {
		p.Entry.CDW12 |= spec.RWForceUnit
	}
	p.setRange(where)
	p.spans = []span{where}
	switch opcode {
	case spec.NVMWrite:
		m.newValues(p)
	case spec.NVMCompare:
		m.valuesToCompare(p)
	case spec.NVMRead:
		p.Data = make([]byte, where.n<<ns.shift)
	}
	m.barred(p)
	if !ns.has(where) {
		p.errors = append(p.errors, spec.LBAOutOfRange)
	}
	if access(opcode) == writes && ns.protect {
		p.errors = append(p.errors, spec.NamespaceWriteProtected)
	}
	if where.n<<ns.shift > MaxTransfer && p.Data != nil {
		p.errors = append(p.errors, spec.InvalidField)
		p.Data = p.Data[:MaxTransfer]
	}
	return p
}

func (p *plan) setRange(where span) {
	p.Entry.SetLBA(where.lba)
	p.Entry.CDW12 |= uint32(where.n - 1)
}

// anySpan is mostly a short range that is there.
func (m *model) anySpan(ns *namespace) span {
	where := span{m.s.Edge(ns.blocks()-1) % ns.blocks(), 1 + uint64(m.s.Intn(8))}
	switch {
	case m.s.Odds(24):
		return span{m.s.Edge(ns.blocks()), where.n}
	case m.s.Odds(24): // perhaps more than the transfer size allows
		where.n = 1 + uint64(m.s.Intn(256))
	}
	if !m.s.Odds(16) {
		where.n = min(where.n, ns.blocks()-where.lba)
	}
	return where
}

func (n *namespace) has(where span) bool {
	return where.n <= n.blocks() && where.lba <= n.blocks()-where.n
}

// newValues gives each block that is written a pattern of its own.
func (m *model) newValues(p *plan) {
	for range p.spans[0].n {
		m.stamp++
		p.values = append(p.values, m.stamp)
	}
	p.putValues()
}

func (p *plan) putValues() {
	size := uint64(1) << p.ns.shift
	p.Data = make([]byte, uint64(len(p.values))*size)
	for i, v := range p.values {
		fill(p.Data[uint64(i)*size:][:size], v)
	}
}

// valuesToCompare are what the blocks may hold, but for one sometimes.
func (m *model) valuesToCompare(p *plan) {
	for i := range p.spans[0].n {
		v := uint32(0)
		if p.ns.has(p.spans[0]) {
			c := p.ns.cells[p.spans[0].lba+i]
			v = c[m.s.Intn(len(c))].stamp
		}
		p.values = append(p.values, v)
	}
	if m.s.Odds(4) {
		p.values[m.s.Intn(len(p.values))] ^= 1
	}
	p.putValues()
}

// deallocation plans Dataset Management.
func (m *model) deallocation(p *plan) {
	n := 1 + m.s.Intn(4)
	p.Data = make([]byte, n*spec.DSMRangeSize)
	p.Entry.CDW10, p.Entry.CDW11 = uint32(n-1), spec.DSMDeallocate
	outside := false
	for i := range n {
		where := m.anySpan(p.ns)
		if m.s.Odds(16) {
			where.n = 0
		}
		(&spec.DSMRange{LBA: where.lba, Blocks: uint32(where.n)}).Put(p.Data[i*spec.DSMRangeSize:])
		outside = outside || !p.ns.has(where)
		p.spans = append(p.spans, where)
	}
	m.barred(p)
	if p.ns.protect {
		p.errors = append(p.errors, spec.NamespaceWriteProtected)
	}
	if outside {
		p.errors = append(p.errors, spec.LBAOutOfRange)
	}
	if m.s.Odds(16) { // a hint only
		p.Entry.CDW11 = 0
		p.spans = nil
		p.errors = slices.DeleteFunc(p.errors, func(st spec.Status) bool { return st != spec.ReservationConflict })
	}
}

// barred adds the status of a command that a reservation keeps away.
func (m *model) barred(p *plan) {
	who := m.reserver(p.host)
	if access(p.Entry.Opcode) == reads && !p.ns.mayRead(who) || access(p.Entry.Opcode) != reads && !p.ns.mayWrite(who) {
		p.errors = append(p.errors, spec.ReservationConflict)
	}
}

// oneCommand runs a command on its own.
func (m *model) oneCommand() {
	h := m.anyHost()
	p := m.anyCommand(h)
	p.queue = m.openQueue(h)
	fault := m.faultOfOne(p)
	m.d.Start(h, p.queue, []*Command{p.Command})
	m.d.Wait(h)
	if fault != nil {
		fault()
	}
	m.settle([]*plan{p}, outcome{})
}

// faultOfOne chooses something that keeps a command from its data, and returns what ends it.
func (m *model) faultOfOne(p *plan) (end func()) {
	if p.ns == nil || len(p.errors) > 0 {
		return nil
	}
	switch m.s.Intn(24) {
	case 1:
		if p.Data == nil || p.Entry.Opcode == spec.NVMDatasetManagement && p.Entry.CDW11 == 0 {
			return nil
		}
		m.logf("the memory is unmapped")
		m.d.Unmap(p.host)
		p.errors = append(p.errors, spec.DataTransferError)
		if m.mayFail(p.ns, p.spans) {
			p.errors = append(p.errors, spec.UnrecoveredRead)
		}
		return func() { m.d.Map(p.host) }
	case 2:
		what, st := FailRead, spec.UnrecoveredRead
		switch p.Entry.Opcode {
		case spec.NVMRead, spec.NVMVerify, spec.NVMCompare:
		case spec.NVMWrite:
			what, st = FailWrite, spec.WriteFault
		default:
			return nil
		}
		if !m.d.Fail(p.ns.id, what, true) {
			return nil
		}
		m.logf("the storage of namespace %d fails", p.ns.id)
		p.errors = append(p.errors, st)
		return func() { m.d.Fail(p.ns.id, what, false) }
	}
	return nil
}

// mayFail says whether there may be a block that is marked.
func (m *model) mayFail(ns *namespace, spans []span) bool {
	for _, s := range spans {
		for i := range s.n {
			if ns.has(s) && ns.cells[s.lba+i].mayBeBad() {
				return true
			}
		}
	}
	return false
}

// openQueue is a queue that the host has.
func (m *model) openQueue(h int) int {
	q := m.s.Intn(Queues)
	if !m.hosts[h].queues[q] {
		m.d.CreateQueue(h, q)
		m.hosts[h].queues[q] = true
	}
	return q
}
