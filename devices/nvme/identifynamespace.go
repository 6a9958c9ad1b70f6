package nvme

import "vfiouser/devices/nvme/spec"

// identifyNamespace is CNS 00h, which takes the broadcast value for what all namespaces have in
// common, and 11h. Of a number that has no namespace it is all zeroes (Base 2.0, 5.17.2).
func (h *host) identifyNamespace(b []byte, nsid uint32, ns *namespace, common bool) spec.Status {
	c := h.c
	switch {
	case ns != nil:
		c.describeNamespace(ns).Put(b)
	case nsid == spec.BroadcastNSID && common:
		id := new(spec.IdentifyNamespace)
		describeFormats(id)
		id.Put(b)
	case !c.validNSID(nsid):
		return c.absent(nsid)
	}
	return spec.Success
}

func (c *Controller) describeNamespace(n *namespace) *spec.IdentifyNamespace {
	ids := c.subsystem.identifiers(n)
	id := &spec.IdentifyNamespace{
		Size: n.blocks, Capacity: n.blocks, Utilization: n.blocks, NMIC: n.nmic(),
		NVMCapacity: [2]uint64{uint64(n.stored())},
		MSSRL:       uint16(c.maxCopy(n)), MCL: uint32(c.maxCopy(n)), MSRC: maxCopyRanges - 1,
		EnduranceGroup: enduranceGroup, RESCAP: c.subsystem.reservationCapabilities(),
		NGUID: ids.NGUID, EUI64: ids.EUI64,
		FPI: n.fpi(),
	}
	c.atomicUnits(n, id)
	if n.info.CanDiscard {
		id.DLFEAT = spec.DLFEATReadZeroes | spec.DLFEATWZDealloc
	}
	if n.info.ReadOnly {
		id.NSATTR = spec.NSAttrProtected
	}
	describeFormats(id)
	id.FLBAS, id.DPS = n.format.flbas(), n.format.dps()
	return id
}

// describeIndependently is what does not depend on the command set, CNS 08h.
func (c *Controller) describeIndependently(n *namespace) *spec.IndependentNamespace {
	id := c.describeNamespace(n)
	return &spec.IndependentNamespace{
		NMIC: id.NMIC, RESCAP: id.RESCAP, FPI: id.FPI, NSATTR: id.NSATTR, EnduranceGroup: id.EnduranceGroup, NSTAT: 1,
	}
}

// nmic says whether several controllers may have the namespace.
func (a *allocation) nmic() uint8 {
	if a.private {
		return 0
	}
	return spec.NMICShared
}

// fpi is what remains of a format.
func (a *allocation) fpi() uint8 {
	if a.formatting.Load() {
		return spec.FPISupported | uint8(100-a.formatted.Load())
	}
	return spec.FPISupported
}

// describeFormats fills in what does not depend on the namespace.
func describeFormats(id *spec.IdentifyNamespace) {
	id.NLBAF = uint8(len(blockFormats) - 1)
	id.MC = spec.MCExtended | spec.MCSeparate
	id.DPC = spec.DPCType1 | spec.DPCType2 | spec.DPCType3 | spec.DPCLastBytes
	for i, b := range blockFormats {
		id.Formats[i] = spec.LBAFormat{MetadataSize: b.metadata, DataExponent: b.shift, Performance: b.performance}
	}
}

// identifyNVM is CNS 05h for the NVM command set.
func (n *namespace) identifyNVM() *spec.IdentifyNamespaceNVM {
	id := describeExtendedFormats()
	id.StorageTagMask = n.format.storageTagMask()
	return id
}

// describeExtendedFormats is what all namespaces have in common of CNS 05h.
func describeExtendedFormats() *spec.IdentifyNamespaceNVM {
	id := &spec.IdentifyNamespaceNVM{PIC: spec.PICStorageTag16 | spec.PICNoMask16 | spec.PICCopyTagCheck}
	for i, b := range blockFormats {
		id.Formats[i] = spec.ExtendedFormat{Guard: b.guard, StorageTag: b.storageTag}
	}
	return id
}

// listFrom puts the numbers greater than nsid of a list of namespaces, CNS 02h and 10h.
func listFrom(b []byte, nsid uint32, list []*namespace) spec.Status {
	if nsid >= spec.BroadcastNSID-1 {
		return spec.InvalidNamespaceOrFormat | spec.StatusDNR
	}
	var ids []uint32
	for _, ns := range list {
		if ns.id > nsid {
			ids = append(ids, ns.id)
		}
	}
	spec.PutNamespaceList(b, ids)
	return spec.Success
}

// putControllers puts the controllers from an identifier on that have a namespace, or all if
// nsid is 0: CNS 12h and 13h.
func (s *Subsystem) putControllers(b []byte, from uint16, nsid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []uint16
	for _, c := range s.controllers {
		if c == nil || c.id() < from {
			continue
		}
		if ns := c.namespace(nsid); nsid == 0 || ns != nil {
			ids = append(ids, c.id())
		}
	}
	spec.PutControllerList(b, ids)
}
