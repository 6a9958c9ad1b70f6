package nvme

import (
	"context"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// eraseStep is how many bytes are erased at a time, so that a reset need not wait for all.
const eraseStep = 1 << 30

// formatAttributes is FNA: a format and an erasure are of the namespaces that the command
// names, and there is a cryptographic erasure.
const formatAttributes = spec.FNACryptoErase

// formatNVM is Format NVM (Base 2.0, 5.14): of one namespace, attached or not, or of all that
// are attached. Whatever the Secure Erase Settings are, what was stored is gone.
func (h *host) formatNVM(e *spec.SubmissionEntry) (spec.Status, uint32) {
	var f spec.FormatNVM
	f.SetWord(e.CDW10)
	next := format{f.Format, f.Extended, f.Protection}
	s := h.c.subsystem
	switch {
	case f.Erase > spec.EraseCrypto:
		return badField, 0
	case f.First, !next.possible():
		return spec.InvalidFormat | spec.StatusDNR, 0
	case !h.c.allows(next):
		return spec.InvalidNamespaceOrFormat | spec.StatusDNR, 0
	}
	var list []*namespace
	if e.NSID == spec.BroadcastNSID {
		list = h.c.active()
	} else if st := s.checkAllocated(e.NSID); !st.OK() {
		return st, 0
	} else if ns := s.allocated(e.NSID); ns != nil {
		if !h.c.serves(ns) {
			return spec.InvalidNamespaceOrFormat | spec.StatusDNR, 0
		}
		list = []*namespace{ns}
	}
	for _, ns := range list {
		if ns.info.ReadOnly {
			return spec.NamespaceWriteProtected | spec.StatusDNR, 0
		}
		if next.blocksIn(ns.backend.Size()) == 0 {
			return spec.InvalidFormat | spec.StatusDNR, 0
		}
	}
	for i, ns := range list {
		if !ns.formatting.CompareAndSwap(false, true) {
			for _, ns := range list[:i] {
				ns.formatting.Store(false)
			}
			return spec.FormatInProgress, 0
		}
	}
	s.selfTest.abort(nil, spec.SelfTestFormatted)
	h.record(spec.EventFormatStart, 1, page(spec.FormatStartEventSize, &spec.FormatStartEvent{NSID: e.NSID, FNA: formatAttributes, CDW10: e.CDW10}))
	nsid := e.NSID
	return h.later(e, func(ctx context.Context, by *courier) (st spec.Status, _ uint32) {
		defer func() { // after a panic too
			for _, ns := range list {
				ns.formatting.Store(false)
			}
		}()
		for len(list) > 0 && st.OK() {
			st = s.format(ctx, list[0].allocation, next, by)
			list[0].formatting.Store(false)
			list = list[1:]
		}
		return st, 0
	}, func(st spec.Status) {
		end := &spec.FormatEndEvent{NSID: nsid, Failed: !st.OK(), Status: st}
		if !st.OK() {
			end.Remaining = 100
		}
		h.record(spec.EventFormatEnd, 1, page(spec.FormatEndEventSize, end))
	})
}

// format erases a namespace and gives it another format. If it is cancelled the format stays,
// and what was stored may be gone.
func (s *Subsystem) format(ctx context.Context, a *allocation, f format, by *courier) (st spec.Status) {
	defer a.formatted.Store(0)
	s.exclude(a, func(ns *namespace) {
		if ns == nil {
			st = badField
			return
		}
		size := ns.backend.Size()
		if f.blocksIn(size) == 0 { // it was resized since the command was checked
			st = spec.InvalidFormat | spec.StatusDNR
			return
		}
		for at := int64(0); at < size && st.OK(); at += eraseStep {
			if ctx.Err() != nil {
				st = spec.AbortRequested
				return
			}
			a.formatted.Store(uint32(at * 100 / size))
			st = by.submit(ns, block.Request{Op: block.WriteZeroes, Deallocate: true, Offset: at, Length: min(eraseStep, size-at)})
		}
		if !st.OK() {
			return
		}
		next := a.newView(f)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.replace(ns, next)
		s.noteChange(next, next.attached)
		s.keepLayout()
	})
	return st
}
