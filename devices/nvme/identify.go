package nvme

import (
	"math/bits"

	"vfiouser/devices/nvme/spec"
)

// identify is the Identify command (Base 1.4, 5.15).
func (h *host) identify(e *spec.SubmissionEntry) (spec.Status, uint32) {
	var b [spec.IdentifySize]byte
	st := h.identifyPage(b[:], uint8(e.CDW10), e.NSID, uint16(e.CDW11), uint8(e.CDW11>>24))
	if st.OK() {
		st = h.data.toHost(e, b[:])
	}
	return st, 0
}

// identifyPage fills b for a CNS value. id is the CNS specific identifier, csi the command set, for the values that
// version 2.0 added; hosts ask for them whatever the version.
func (h *host) identifyPage(b []byte, cns uint8, nsid uint32, id uint16, csi uint8) spec.Status {
	const badNamespace = spec.InvalidNamespaceOrFormat | spec.StatusDNR
	c := h.c
	ns := c.namespace(nsid)
	switch cns {
	case spec.CNSNamespace, spec.CNSDescriptors, spec.CNSCommandSetNamespace, spec.CNSIndependentNamespace:
		if ns == nil {
			return badNamespace
		}
	case spec.CNSActiveNamespaces:
		if nsid >= spec.BroadcastNSID-1 {
			return badNamespace
		}
	}
	switch cns {
	case spec.CNSNamespace:
		c.identifyNamespace(ns).Put(b)
	case spec.CNSController:
		h.identifyController().Put(b)
	case spec.CNSActiveNamespaces:
		var ids []uint32
		for _, ns := range c.active() {
			if ns.id > nsid {
				ids = append(ids, ns.id)
			}
		}
		spec.PutNamespaceList(b, ids)
	case spec.CNSEnduranceGroups:
		if id <= enduranceGroup {
			spec.PutEnduranceGroupList(b, enduranceGroup)
		}
	case spec.CNSDescriptors:
		c.subsystem.identifiers(ns).Put(b)
	case spec.CNSIndependentNamespace:
		(&spec.IndependentNamespace{NSTAT: 1, RESCAP: reservationCapabilities}).Put(b)
	case spec.CNSCommandSetNamespace:
		if csi != 0 {
			return spec.InvalidField | spec.StatusDNR
		}
		ns.identifyNVM().Put(b)
	case spec.CNSCommandSetController:
		// All fields of the NVM command set are optional, 0 is "not reported".
		if csi != 0 {
			return spec.InvalidField | spec.StatusDNR
		}
	default:
		return spec.InvalidField | spec.StatusDNR
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
		Version:           spec.Version1_4,
		ControllerType:    1,
		CTRATT:            spec.CTRATTExtendedHostID | spec.CTRATTNonOperationalPS | spec.CTRATTExtendedLBAFormats,
		ACL:               3,
		OAES:              offeredNotices &^ spec.AsyncConfigTelemetry, // LPA announces those
		AERL:              maxAsyncEvents - 1,
		ELPE:              errorEntries - 1,
		WarningTemp:       warningTemp,
		CriticalTemp:      criticalTmp,
		SQES:              spec.SubmissionEntryExponent<<4 | spec.SubmissionEntryExponent,
		CQES:              spec.CompletionEntryExponent<<4 | spec.CompletionEntryExponent,
		Namespaces:        MaxNamespaces,
		ONCS: spec.ONCSCompare | spec.ONCSWriteUncorrectable | spec.ONCSDatasetManagement | spec.ONCSWriteZeroes | spec.ONCSSaveFeatures |
			spec.ONCSTimestamp | spec.ONCSVerify | spec.ONCSCopy | spec.ONCSReservations,
		OCFS:   spec.OCFSFormat0 | spec.OCFSFormat1,
		FUSES:  spec.FUSESCompareAndWrite,
		ACWU:   c.mostCompareAndWrite(),
		VWC:    spec.VWCFlushBroadcast,
		SGLS:   spec.SGLSSupported | spec.SGLSLongerThanData | spec.SGLSMetadata,
		SubNQN: nqn(serial),
	}
	identifyManagement(id)
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
