package nvme

import (
	"context"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// keptProtection is the subject of the namespaces that stay write protected.
const keptProtection = "protection"

// writeProtectFeature is the write protection of a namespace, which all controllers share (Base
// 2.0, 8.12).
var writeProtectFeature = feature{
	caps: changeable | spec.FeatureNamespace, scope: spec.ScopeNamespace, mask: 7,
	current: func(h *host, part uint32, v featureValue) featureValue {
		if ns := h.c.namespace(part); ns != nil {
			v.Number = ns.protect.Load()
		}
		return v
	},
	later: (*host).setWriteProtect,
}

// setWriteProtect is Set Features of it.
func (h *host) setWriteProtect(e *spec.SubmissionEntry, v featureValue) (spec.Status, uint32) {
	ns := h.c.namespace(e.NSID)
	switch {
	case ns == nil: // all of them: one command must not protect everything for ever
		return badField, 0
	case v.Number > spec.WriteProtectPermanent:
		return badField, 0
	case ns.protect.Load() >= spec.WriteProtectPowerCycle:
		return spec.FeatureNotChangeable | spec.StatusDNR, 0
	}
	return h.later(e, func(_ context.Context, by *courier) (spec.Status, uint32) {
		return h.c.subsystem.protect(ns.allocation, v.Number, by), 0
	}, nil)
}

// protect changes the write protection of a namespace, when what is under way on it has ended
// and is durable.
func (s *Subsystem) protect(a *allocation, state uint32, by *courier) (st spec.Status) {
	s.exclude(a, func(ns *namespace) {
		switch {
		case ns == nil:
			st = spec.InvalidNamespaceOrFormat | spec.StatusDNR
			return
		case a.protect.Load() >= spec.WriteProtectPowerCycle:
			st = spec.FeatureNotChangeable | spec.StatusDNR
			return
		case !ns.info.ReadOnly:
			if st = by.submit(ns, block.Request{Op: block.Flush}); !st.OK() {
				return
			}
		}
		a.protect.Store(state)
		s.refresh(ns)
	})
	if st.OK() {
		s.keepProtection()
		if ns := a.view.Load(); ns != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.noteChange(ns, ns.attached)
		}
	}
	return st
}

// refresh makes the view of an excluded namespace anew, after something has changed of which
// commands are to know that were checked before.
func (s *Subsystem) refresh(ns *namespace) {
	next := ns.newView(ns.format)
	s.uncorrectable.keep(ns, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(ns, next)
}

// protection lists the states of namespaces that are protected.
func (s *Subsystem) protection() map[uint32]uint32 {
	states := make(map[uint32]uint32)
	for _, ns := range s.list() {
		if state := ns.protect.Load(); state != spec.WriteProtectNone {
			states[ns.id] = state
		}
	}
	return states
}

func possibleProtection(states map[uint32]uint32) bool {
	for id, state := range states {
		if id == 0 || id > MaxNamespaces || state > spec.WriteProtectPermanent {
			return false
		}
	}
	return true
}

func (s *Subsystem) keepProtection() { s.keepNow(keptProtection, func() any { return s.protection() }) }

// recallProtection reads what was kept; there was no power in between.
func (s *Subsystem) recallProtection() error {
	if _, err := s.state.recall(keptProtection, &s.protected); err != nil {
		return err
	}
	if !possibleProtection(s.protected) {
		return impossible(keptProtection)
	}
	for id, state := range s.protected {
		if state == spec.WriteProtectPowerCycle {
			delete(s.protected, id)
		}
	}
	return nil
}

// loadProtection takes over the states of a drive that arrives.
func (s *Subsystem) loadProtection(states map[uint32]uint32) {
	for _, ns := range s.list() {
		if ns.protect.Swap(states[ns.id]) != states[ns.id] {
			s.renew(ns.allocation)
		}
	}
	s.keepProtection()
}

// renew is refresh of a namespace that is not excluded.
func (s *Subsystem) renew(a *allocation) {
	s.exclude(a, func(ns *namespace) {
		if ns != nil {
			s.refresh(ns)
		}
	})
}
