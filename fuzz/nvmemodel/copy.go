package nvmemodel

import (
	"vfiouser/devices/nvme/spec"
)

// copyBlocks runs a Copy whose sources are certain.
func (m *model) copyBlocks() {
	h := m.anyHost()
	active := m.activeNamespaces(h)
	if len(active) == 0 {
		return
	}
	ns := active[m.s.Intn(len(active))]
	p := &plan{host: h, ns: ns}
	var ranges []span
	total := uint64(0)
	for range 1 + m.s.Intn(3) {
		r := m.anySpan(ns)
		ranges = append(ranges, r)
		total += r.n
	}
	to := span{m.s.Edge(ns.blocks()-1) % ns.blocks(), total}
	if m.s.Bool() && total <= ns.blocks() {
		to.lba = min(to.lba, ns.blocks()-total)
	}
	e := spec.SubmissionEntry{Opcode: spec.NVMCopy, NSID: ns.id, CDW12: uint32(len(ranges) - 1)}
	e.SetLBA(to.lba)
	p.Command = &Command{Entry: e, Data: make([]byte, len(ranges)*spec.CopyRangeSize)}
	p.spans = []span{to}
	m.barred(p)
	if ns.protect {
		p.errors = append(p.errors, spec.NamespaceWriteProtected)
	}
	if limit := uint64(MaxTransfer) >> ns.shift; total > limit {
		p.errors = append(p.errors, spec.CommandSizeLimitsExceeded)
	}
	if !ns.has(to) {
		p.errors = append(p.errors, spec.LBAOutOfRange)
	}
	for i, r := range ranges {
		(&spec.CopyRange{LBA: r.lba, Blocks: uint32(r.n)}).Put(p.Data[i*spec.CopyRangeSize:])
		if !ns.has(r) {
			p.errors = append(p.errors, spec.LBAOutOfRange)
			continue
		}
		for b := range r.n {
			c := ns.cells[r.lba+b]
			if len(c) > 1 {
				return
			}
			if c[0].bad {
				p.errors = append(p.errors, spec.UnrecoveredRead)
			}
			p.values = append(p.values, c[0].stamp)
		}
	}
	p.queue = m.openQueue(h)
	m.logf("copy %v to %v", ranges, to)
	m.d.Start(h, p.queue, []*Command{p.Command})
	m.d.Wait(h)
	m.settle([]*plan{p}, outcome{})
}
