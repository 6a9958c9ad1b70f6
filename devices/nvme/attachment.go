package nvme

import (
	"context"
	"math/bits"

	"vfiouser/devices/nvme/spec"
)

// namespaceAttachment is Namespace Attachment (Base 2.0, 5.22). Either all controllers of the
// list are served or none.
func (h *host) namespaceAttachment(e *spec.SubmissionEntry) (spec.Status, uint32) {
	s, sel := h.c.subsystem, e.CDW10&0xf
	if sel > spec.NamespaceDetach {
		return badField, 0
	}
	if st := s.checkAllocated(e.NSID); !st.OK() {
		return st, 0
	}
	var b [spec.IdentifySize]byte
	if st := h.data.fromHost(e, b[:]); !st.OK() {
		return st, 0
	}
	ids, ok := spec.ControllerList(b[:])
	if !ok {
		return spec.ControllerListInvalid | spec.StatusDNR, 0
	}
	nsid := e.NSID
	if sel == spec.NamespaceAttach {
		return s.attach(nsid, ids), 0
	}
	return h.later(e, func(context.Context, *courier) (spec.Status, uint32) { return s.detach(nsid, ids), 0 }, nil)
}

// attach lets controllers have a namespace.
func (s *Subsystem) attach(nsid uint32, ids []uint16) spec.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns := s.namespaces[nsid-1]
	set, ok := s.controllerSet(ids)
	switch {
	case ns == nil:
		return badField
	case !ok:
		return spec.ControllerListInvalid | spec.StatusDNR
	case ns.attached&set != 0:
		return spec.NamespaceAlreadyAttached | spec.StatusDNR
	case ns.private && bits.OnesCount8(ns.attached|set) > 1:
		return spec.NamespaceIsPrivate | spec.StatusDNR
	}
	s.setAttached(ns, ns.attached|set, set)
	return spec.Success
}

// detach takes a namespace from controllers when no command is at it.
func (s *Subsystem) detach(nsid uint32, ids []uint16) (st spec.Status) {
	found := s.allocated(nsid)
	if found == nil {
		return badField
	}
	s.exclude(found.allocation, func(ns *namespace) {
		s.mu.Lock()
		defer s.mu.Unlock()
		set, ok := s.controllerSet(ids)
		switch {
		case ns == nil:
			st = badField
		case !ok:
			st = spec.ControllerListInvalid | spec.StatusDNR
		case ns.attached&set != set:
			st = spec.NamespaceNotAttached | spec.StatusDNR
		default:
			s.setAttached(ns, ns.attached&^set, set)
		}
	})
	return st
}

// setAttached makes a set the controllers that have a namespace, and tells those that have
// changed. Controllers that come later do not get it unasked. The caller holds mu.
func (s *Subsystem) setAttached(ns *namespace, set, changed uint8) {
	if ns.private {
		ns.wanted = 0 // nobody who is away gets it back from the one who has it now
	}
	ns.attached, ns.wanted, ns.everywhere = set, ns.wanted&^changed|set, false
	s.publish()
	s.noteChange(ns, changed)
	s.keepLayout()
}
