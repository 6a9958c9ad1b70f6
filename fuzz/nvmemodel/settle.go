package nvmemodel

import (
	"slices"

	"vfiouser/devices/nvme/spec"
)

// outcome is what a fault allows.
type outcome struct {
	lost   bool          // commands need not complete
	errors []spec.Status // with which commands may end beside their own
	erased bool          // a namespace was erased meanwhile
}

// where is a block of a namespace.
type where struct {
	ns  *namespace
	lba uint64
}

// settle checks commands that were under way at the same time, and what they have returned, and
// takes what they have done into the model.
func (m *model) settle(list []*plan, o outcome) {
	m.t.Helper()
	meanwhile := meanwhile(list)
	for _, p := range list {
		m.judge(p, o, meanwhile)
	}
	if len(list) > 1 {
		for _, h := range m.hosts {
			h.failed = 0 // in whatever order
		}
	}
	for at, c := range afterwards(list, o, meanwhile) {
		at.ns.cells[at.lba] = c
	}
}

// effect is what a write does to a block.
func (p *plan) effect(c cell, i uint64) cell {
	switch p.Entry.Opcode {
	case spec.NVMWrite, spec.NVMCopy:
		return c.written(p.values[i])
	case spec.NVMWriteZeroes:
		return c.written(0)
	case spec.NVMWriteUncorrectable:
		return c.marked()
	}
	return c.deallocated()
}

// harmless are the errors of commands that have changed nothing.
var harmless = []spec.Status{
	spec.InvalidField, spec.InvalidNamespaceOrFormat, spec.LBAOutOfRange, spec.ReservationConflict,
	spec.NamespaceWriteProtected, spec.FormatInProgress, spec.CommandSizeLimitsExceeded, spec.UnrecoveredRead,
	spec.AbortFailedFused, spec.SanitizeFailed,
}

// changes says whether a command has changed its blocks, or may have.
func (p *plan) changes() (did, may bool) {
	if p.ns == nil || access(p.Entry.Opcode) != writes {
		return false, false
	}
	if p.Done && p.Status.OK() {
		return true, true
	}
	return false, !p.Done || !slices.Contains(harmless, p.Status.Code())
}

// eachWrite calls f for each block that a command has changed or may have changed.
func eachWrite(list []*plan, f func(p *plan, at where, i uint64, did bool)) {
	for _, p := range list {
		did, may := p.changes()
		if !may {
			continue
		}
		for _, s := range p.spans {
			for i := range s.n {
				if s.lba+i < p.ns.blocks() {
					f(p, where{p.ns, s.lba + i}, i, did)
				}
			}
		}
	}
}

// meanwhile is all that the blocks that are written may hold while the commands are under way.
func meanwhile(list []*plan) map[where]cell {
	cells := map[where]cell{}
	// Marks and deallocations change what another command has written: as often as there are
	// commands, it may go one step further.
	for range list {
		eachWrite(list, func(p *plan, at where, i uint64, _ bool) {
			now, ok := cells[at]
			if !ok {
				now = at.ns.cells[at.lba]
			}
			cells[at] = now.mayAlso(p.effect(now, i)...)
		})
	}
	return cells
}

// afterwards is what they may hold then.
func afterwards(list []*plan, o outcome, meanwhile map[where]cell) map[where]cell {
	only := map[where]*plan{} // who has written a block; nil: several have
	eachWrite(list, func(p *plan, at where, _ uint64, _ bool) {
		if other, ok := only[at]; ok && other != p {
			p = nil
		}
		only[at] = p
	})
	cells := map[where]cell{}
	eachWrite(list, func(p *plan, at where, i uint64, did bool) {
		if only[at] == p && did && !o.erased {
			cells[at] = p.effect(at.ns.cells[at.lba], i)
			return
		}
		cells[at] = meanwhile[at]
	})
	return cells
}

// judge checks how a command has ended, and what it has returned.
func (m *model) judge(p *plan, o outcome, meanwhile map[where]cell) {
	m.t.Helper()
	e := &p.Entry
	m.logf("host %d, queue %d: opcode %#x, namespace %d, %v: done %v, %v", p.host, p.queue, e.Opcode, e.NSID, p.spans, p.Done, p.Status)
	if !p.Done {
		if !o.lost {
			m.fatalf("command %+v has not completed", *e)
		}
		return
	}
	if p.aborted != (p.Status.Code() == spec.AbortRequested) {
		m.fatalf("command %+v: %v, aborted %v", *e, p.Status, p.aborted)
	}
	if !p.Status.OK() {
		m.hosts[p.host].failed = p.Status.Code()
	}
	allowed := slices.Concat(p.errors, o.errors)
	must := len(p.errors) > 0
	if p.ns != nil && len(p.errors) == 0 {
		more, certain := p.verdict(meanwhile)
		allowed, must = append(allowed, more...), certain
	}
	switch {
	case p.aborted:
	case p.Status.OK() && must:
		m.fatalf("command %+v of %v has succeeded, want one of %v", *e, p.spans, allowed)
	case !p.Status.OK() && !slices.Contains(allowed, p.Status.Code()):
		m.fatalf("command %+v of %v: %v, want one of %v, or success: %v", *e, p.spans, p.Status, allowed, !must)
	case p.Status.OK() && e.Opcode == spec.NVMRead:
		m.compareData(p, o, meanwhile)
	}
}

// verdict is how a command that reads blocks may end: with which errors, and whether it must.
func (p *plan) verdict(meanwhile map[where]cell) (errors []spec.Status, must bool) {
	if access(p.Entry.Opcode) != reads {
		return nil, false
	}
	equal, certainlyEqual := true, true
	for _, s := range p.spans {
		for i := range s.n {
			c := p.seen(meanwhile, s.lba+i)
			if c.mayBeBad() {
				errors = append(errors, spec.UnrecoveredRead)
			}
			must = must || !c.mayBeGood()
			if p.Entry.Opcode == spec.NVMCompare {
				is := func(x content) bool { return x.stamp == p.values[i] }
				equal = equal && c.mayBe(is)
				certainlyEqual = certainlyEqual && !c.mayBe(func(x content) bool { return !is(x) })
			}
		}
	}
	if !certainlyEqual {
		errors = append(errors, spec.CompareFailure)
	}
	return errors, must || !equal
}

// seen is what a command may find in a block.
func (p *plan) seen(meanwhile map[where]cell, lba uint64) cell {
	if c, ok := meanwhile[where{p.ns, lba}]; ok {
		return c
	}
	return p.ns.cells[lba]
}

// compareData checks what was read, and learns from it.
func (m *model) compareData(p *plan, o outcome, meanwhile map[where]cell) {
	m.t.Helper()
	first, size := p.spans[0].lba, uint64(1)<<p.ns.shift
	for i := range p.spans[0].n {
		stamp, ok := stampOf(p.Data[i*size:][:size])
		found := content{stamp: stamp}
		c := p.seen(meanwhile, first+i)
		if !ok || !slices.Contains(c, found) {
			m.fatalf("block %d of namespace %d has % x..., want one of %v", first+i, p.ns.id, p.Data[i*size:][:16], c)
		}
		if _, changing := meanwhile[where{p.ns, first + i}]; !changing && !o.erased {
			p.ns.cells[first+i] = certainly(found)
		}
	}
}
