package nvme

import (
	"math/bits"

	"vfiouser/devices/nvme/spec"
)

// identify is the Identify command (Base 1.4, 5.15).
func (h *host) identify(e *spec.SubmissionEntry) (spec.Status, uint32) {
	var b [spec.IdentifySize]byte
	st := h.identifyPage(b[:], e)
	if st.OK() {
		st = h.data.toHost(e, b[:])
	}
	return st, 0
}

// identifyPage fills b.
func (h *host) identifyPage(b []byte, e *spec.SubmissionEntry) spec.Status {
	const setIsNVM = 0
	c, s := h.c, h.c.subsystem
	cns, controller := uint8(e.CDW10), uint16(e.CDW10>>16)
	id, set := uint16(e.CDW11), uint8(e.CDW11>>24)
	ns := c.namespace(e.NSID)
	switch cns {
	case spec.CNSCommandSetNamespace, spec.CNSCommandSetController:
		if set != setIsNVM {
			return badField
		}
	}
	switch cns {
	case spec.CNSNamespace:
		return h.identifyNamespace(b, e.NSID, ns, true)
	case spec.CNSAllocatedNamespace:
		return h.identifyNamespace(b, e.NSID, s.allocated(e.NSID), false)
	case spec.CNSController:
		h.identifyController().Put(b)
	case spec.CNSActiveNamespaces:
		return listFrom(b, e.NSID, c.active())
	case spec.CNSAllocatedNamespaces:
		return listFrom(b, e.NSID, s.list())
	case spec.CNSNamespaceControllers:
		st := s.checkAllocated(e.NSID)
		if st.OK() {
			s.putControllers(b, controller, e.NSID)
		}
		return st
	case spec.CNSSubsystemControllers:
		s.putControllers(b, controller, 0)
	case spec.CNSEnduranceGroups:
		if id <= enduranceGroup {
			spec.PutEnduranceGroupList(b, enduranceGroup)
		}
	case spec.CNSDescriptors:
		if ns == nil {
			return c.absent(e.NSID)
		}
		s.identifiers(ns).Put(b)
	case spec.CNSIndependentNamespace, spec.CNSCommandSetNamespace:
		switch {
		case e.NSID == spec.BroadcastNSID && cns == spec.CNSCommandSetNamespace:
			describeExtendedFormats().Put(b)
		case !c.validNSID(e.NSID):
			return c.absent(e.NSID)
		case ns == nil: // all zeroes
		case cns == spec.CNSCommandSetNamespace:
			ns.identifyNVM().Put(b)
		default:
			c.describeIndependently(ns).Put(b)
		}
	case spec.CNSCommandSetController:
		// All fields of the NVM command set are optional, 0 is "not reported".
	default:
		return badField
	}
	return spec.Success
}

// identifyController is CNS 01h.
func (h *host) identifyController() *spec.IdentifyController {
	c := h.c
	serial, model, firmware := c.subsystem.names()
	id := &spec.IdentifyController{
		VendorID:          c.cfg.VendorID,
		SubsystemVendorID: c.cfg.VendorID,
		Serial:            serial,
		Model:             model,
		Firmware:          firmware,
		RAB:               recommendedBurst,
		MDTS:              uint8(bits.TrailingZeros(uint(c.cfg.MaxTransfer)) - pageShift),
		ControllerID:      c.id(),
		Version:           spec.Version2_0,
		ControllerType:    1,
		CTRATT:            spec.CTRATTExtendedHostID | spec.CTRATTNonOperationalPS | spec.CTRATTExtendedLBAFormats,
		ACL:               3,
		OAES:              offeredNotices &^ spec.AsyncConfigTelemetry, // LPA announces those
		AERL:              maxAsyncEvents - 1,
		ELPE:              errorEntries - 1,
		WarningTemp:       warningTemp,
		CriticalTemp:      criticalTmp,
		FNA:               formatAttributes,
		SQES:              spec.SubmissionEntryExponent<<4 | spec.SubmissionEntryExponent,
		CQES:              spec.CompletionEntryExponent<<4 | spec.CompletionEntryExponent,
		Namespaces:        MaxNamespaces,
		ONCS: spec.ONCSCompare | spec.ONCSWriteUncorrectable | spec.ONCSDatasetManagement | spec.ONCSWriteZeroes | spec.ONCSSaveFeatures |
			spec.ONCSTimestamp | spec.ONCSVerify | spec.ONCSCopy | spec.ONCSReservations,
		OCFS:   spec.OCFSFormat0 | spec.OCFSFormat1,
		FUSES:  spec.FUSESCompareAndWrite,
		ACWU:   c.mostCompareAndWrite(),
		VWC:    spec.VWCFlushBroadcast,
		SGLS:   spec.SGLSSupported | spec.SGLSBitBucket | spec.SGLSLongerThanData | spec.SGLSMetadata,
		SubNQN: nqn(serial),
	}
	identifyManagement(id)
	total, free := c.subsystem.capacity()
	id.TotalCapacity, id.UnallocatedCapacity = [2]uint64{total}, [2]uint64{free}
	id.MNAN = MaxNamespaces
	id.OACS |= spec.OACSNamespaceManagement | spec.OACSFormat
	if h.offersShadow() {
		id.OACS |= spec.OACSDoorbellBuffer
	}
	if c.subsystem.several() {
		id.CMIC = spec.CMICControllers
	}
	if c.volatileCache() {
		id.VWC |= spec.VWCPresent
	}
	return id
}

// volatileCache says whether any namespace may lose what was not flushed.
func (c *Controller) volatileCache() bool {
	for _, ns := range c.active() {
		if ns.info.VolatileCache {
			return true
		}
	}
	return false
}
