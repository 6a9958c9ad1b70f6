package nvme

import (
	"context"
	"errors"
	"io/fs"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// namespaceManagement is Namespace Management (Base 2.0, 5.23).
func (h *host) namespaceManagement(e *spec.SubmissionEntry) (spec.Status, uint32) {
	switch e.CDW10 & 0xf {
	case spec.NamespaceCreate:
		return h.createNamespace(e)
	case spec.NamespaceDelete:
		return h.deleteNamespace(e)
	}
	return badField, 0
}

// createNamespace makes a namespace that is attached to no controller; the result is its
// number.
func (h *host) createNamespace(e *spec.SubmissionEntry) (spec.Status, uint32) {
	switch {
	case e.NSID != 0:
		return badField, 0
	case e.CDW11>>24 != 0: // the command set
		return spec.CommandSetNotSupported | spec.StatusDNR, 0
	}
	var b [spec.IdentifySize]byte
	if st := h.data.fromHost(e, b[:]); !st.OK() {
		return st, 0
	}
	var id spec.IdentifyNamespace
	id.Get(b[:])
	f := format{id.FLBAS&0xf | id.FLBAS>>5&3<<4, id.FLBAS&spec.FLBASExtended != 0, id.DPS & 7}
	switch {
	case id.Size == 0, id.Capacity > id.Size, id.NMIC&^spec.NMICShared != 0, id.DPS&^7 != 0:
		return badField, 0
	case id.ANAGroup != 0, id.NVMSet != 0, id.EnduranceGroup > enduranceGroup: // what there is has no number
		return badField, 0
	case !f.possible():
		return spec.InvalidFormat | spec.StatusDNR, 0
	case !h.c.allows(f):
		return spec.InvalidNamespaceOrFormat | spec.StatusDNR, 0
	case f.protection != 0 && !f.takesMask(spec.StorageTagMask(b[:])):
		return badField, 0
	case id.Capacity != id.Size:
		return spec.ThinProvisioningNotSupported | spec.StatusDNR, 0
	}
	bytes, ok := f.bytesOf(id.Size)
	h.required = uint64(bytes)
	if !ok {
		return spec.NamespaceInsufficientCapacity | spec.StatusDNR, 0
	}
	nsid, st := h.c.subsystem.create(bytes, f, id.NMIC&spec.NMICShared == 0)
	if st.OK() {
		h.recordNamespace(e, &id, nsid)
	}
	return st, nsid
}

// recordNamespace puts what was done into the persistent event log.
func (h *host) recordNamespace(e *spec.SubmissionEntry, id *spec.IdentifyNamespace, nsid uint32) {
	h.record(spec.EventNamespace, 1, page(spec.NamespaceEventSize, &spec.NamespaceEvent{
		CDW10: e.CDW10, NSID: nsid, Size: id.Size, Capacity: id.Capacity, FLBAS: id.FLBAS, DPS: id.DPS, NMIC: id.NMIC,
	}))
}

// create makes a namespace of bytes from the pool.
func (s *Subsystem) create(bytes int64, f format, private bool) (nsid uint32, st spec.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	nsid = s.nextID()
	switch {
	case nsid == 0:
		return 0, spec.NamespaceIdentifierUnavailable | spec.StatusDNR
	case s.closed:
		return 0, spec.InternalError
	case s.cfg.Pool == nil:
		return 0, spec.NamespaceInsufficientCapacity | spec.StatusDNR
	}
	name := volumeName(nsid, s.generations[nsid])
	b, err := s.cfg.Pool.Create(name, bytes)
	if errors.Is(err, fs.ErrExist) { // of a process that ended before it could keep the layout
		if err = s.cfg.Pool.Remove(name); err == nil {
			b, err = s.cfg.Pool.Create(name, bytes)
		}
	}
	switch {
	case errors.Is(err, block.ErrPoolFull):
		return 0, spec.NamespaceInsufficientCapacity | spec.StatusDNR
	case err != nil:
		s.cfg.Logger.Error("the pool made no namespace", "bytes", bytes, "err", err)
		return 0, spec.InternalError
	}
	a := s.newAllocation(nsid, b)
	a.volume, a.private = name, private
	ns := a.newView(f)
	a.view.Store(ns)
	s.namespaces[nsid-1] = ns
	s.keepLayout()
	return nsid, spec.Success
}

// deleteNamespace detaches and removes a namespace, or all of them.
func (h *host) deleteNamespace(e *spec.SubmissionEntry) (spec.Status, uint32) {
	s := h.c.subsystem
	var doomed []uint32
	if e.NSID == spec.BroadcastNSID {
		for _, ns := range s.list() {
			doomed = append(doomed, ns.id)
		}
	} else if st := s.checkAllocated(e.NSID); !st.OK() {
		return st, 0
	} else {
		doomed = []uint32{e.NSID}
	}
	for _, id := range doomed {
		if ns := s.allocated(id); ns != nil && ns.protect.Load() != spec.WriteProtectNone {
			return spec.NamespaceWriteProtected | spec.StatusDNR, 0
		}
	}
	h.recordNamespace(e, new(spec.IdentifyNamespace), e.NSID)
	return h.later(e, func(ctx context.Context, _ *courier) (spec.Status, uint32) {
		for _, id := range doomed {
			if ctx.Err() != nil {
				return spec.AbortRequested, 0
			}
			switch err := s.RemoveNamespace(id); {
			case errors.Is(err, ErrNoNamespace) && len(doomed) == 1:
				return badField, 0
			case err != nil && !errors.Is(err, ErrNoNamespace):
				s.cfg.Logger.Error("the storage of a namespace did not close", "namespace", id, "err", err)
			}
		}
		return spec.Success, 0
	}, nil)
}

// checkAllocated is the status of a command for one namespace, attached or not.
func (s *Subsystem) checkAllocated(id uint32) spec.Status {
	switch {
	case id == 0 || id > MaxNamespaces:
		return spec.InvalidNamespaceOrFormat | spec.StatusDNR
	case s.allocated(id) == nil:
		return badField
	}
	return spec.Success
}
