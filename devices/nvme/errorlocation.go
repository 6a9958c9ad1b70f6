package nvme

import "vfiouser/devices/nvme/spec"

// A parameter error location is a byte of the command and a bit in it (Base 2.0,
// 5.16.1.2).
type location = uint16

func at(byte, bit uint8) location { return location(bit)<<8 | location(byte) }

const (
	// noLocation says that no field of the command is to blame.
	noLocation location = 0xffff

	inOpcode   location = 0
	inFuse     location = 1
	inPSDT     location = 6<<8 | 1
	inNSID     location = 4
	inMetadata location = 16
	inPRP1     location = 24
	inPRP2     location = 32
	inCDW10    location = 40
	inCDW11    location = 44
	inCDW12    location = 48
	inPRInfo   location = 2<<8 | 51
)

// adminLocation is the field of an admin command that a status complains of.
func (h *host) adminLocation(e *spec.SubmissionEntry, st spec.Status) location {
	createsSQ := e.Opcode == spec.AdminCreateSQ
	switch st.Code() {
	case spec.InvalidField:
		switch {
		case e.Fuse() != 0:
			return inFuse
		case e.PSDT() != 0:
			return inPSDT
		}
		return h.adminField(e)
	case spec.InvalidNamespaceOrFormat, spec.FeatureNotNamespace:
		return inNSID
	case spec.InvalidPRPOffset:
		if e.Opcode == spec.AdminCreateCQ || createsSQ || e.PRP1&3 != 0 {
			return inPRP1
		}
		return inPRP2
	case spec.InvalidQueueID:
		if createsSQ && !h.validID(uint16(e.CDW11>>16)) {
			return inCDW11 + 2
		}
		return inCDW10
	case spec.InvalidQueueSize:
		return inCDW10 + 2
	case spec.CompletionQueueInvalid, spec.InvalidInterruptVector:
		return inCDW11 + 2
	case spec.InvalidLogPage, spec.InvalidQueueDeletion, spec.FeatureNotChangeable, spec.InvalidFirmwareSlot:
		return inCDW10
	case spec.FeatureNotSaveable:
		return at(43, 7)
	case spec.InvalidOpcode:
		return inOpcode
	}
	return noLocation
}

// adminField is where an admin command has what is refused as an invalid field.
func (h *host) adminField(e *spec.SubmissionEntry) location {
	switch e.Opcode {
	case spec.AdminCreateCQ, spec.AdminCreateSQ:
		return inCDW11
	case spec.AdminGetFeatures:
		if e.CDW10>>8&7 > spec.SelectCapabilities {
			return inCDW10 + 1
		}
		return h.featureField(e)
	case spec.AdminSetFeatures:
		return h.featureField(e)
	case spec.AdminSelfTest:
		if e.NSID != 0 && e.NSID != spec.BroadcastNSID && h.c.namespace(e.NSID) == nil {
			return inNSID
		}
	case spec.AdminDirectiveSend, spec.AdminDirectiveReceive:
		if e.NSID != spec.BroadcastNSID && h.c.namespace(e.NSID) == nil {
			return inNSID
		}
		return inCDW11
	case spec.AdminFormatNVM:
		if e.CDW10>>9&7 > spec.EraseCrypto {
			return at(41, 1)
		}
		return inNSID
	case spec.AdminNamespaceManagement:
		switch sel := e.CDW10 & 0xf; {
		case sel == spec.NamespaceCreate && e.NSID == 0: // the data structure
			return noLocation
		case sel <= spec.NamespaceDelete:
			return inNSID
		}
	case spec.AdminNamespaceAttachment:
		if e.CDW10&0xf <= spec.NamespaceDetach {
			return inNSID
		}
	case spec.AdminIdentify:
		switch uint8(e.CDW10) {
		case spec.CNSDescriptors, spec.CNSNamespaceControllers:
			return inNSID
		case spec.CNSCommandSetNamespace, spec.CNSCommandSetController:
			return inCDW11 + 3
		}
	case spec.AdminFirmwareCommit:
		return at(40, 3) // the action
	case spec.AdminSecuritySend, spec.AdminSecurityReceive:
		if e.CDW10>>24 == securityInformation {
			return inCDW10 + 1
		}
		return inCDW10 + 3
	case spec.AdminGetLogPage:
		switch {
		case e.NSID != 0 && e.NSID != spec.BroadcastNSID:
			return inNSID
		case e.CDW14&offsetType != 0:
			return at(58, 7)
		case uint8(e.CDW10) == spec.LogEnduranceGroup && e.CDW11>>16 != enduranceGroup:
			return inCDW11 + 2
		}
		if e.CDW12 != 0 || e.CDW13 != 0 {
			return inCDW12
		}
		return inCDW10 + 2
	case spec.AdminDoorbellBuffer:
		if e.PRP1%pageSize == 0 {
			return inPRP2
		}
		return inPRP1
	}
	return inCDW10
}

// featureField is where a command for a feature has what is refused.
func (h *host) featureField(e *spec.SubmissionEntry) location {
	id := uint8(e.CDW10)
	switch {
	case !h.offers(id):
		return inCDW10
	case h.c.features[id].caps&spec.FeatureNamespace == 0 || h.c.namespace(e.NSID) != nil:
	case e.NSID != spec.BroadcastNSID, e.Opcode == spec.AdminGetFeatures, id == spec.FeatWriteProtect:
		return inNSID // all of them cannot be meant
	}
	return inCDW11
}

// ioLocation is the field of an I/O command that a status complains of.
func (c *Controller) ioLocation(e *spec.SubmissionEntry, st spec.Status) location {
	switch st.Code() {
	case spec.InvalidField:
		switch {
		case e.Fuse() != 0:
			return inFuse
		case e.PSDT() > spec.PSDTSGLSegment:
			return inPSDT
		case c.namespace(e.NSID) == nil && e.NSID != spec.BroadcastNSID:
			return inNSID
		case isReservation(e.Opcode):
			return reservationField(e)
		}
		return inCDW12
	case spec.InvalidNamespaceOrFormat, spec.NamespaceWriteProtected:
		return inNSID
	case spec.LBAOutOfRange:
		// Ranges are not in the command itself.
		if e.Opcode != spec.NVMDatasetManagement && e.Opcode != spec.NVMCopy {
			return inCDW10
		}
	case spec.CommandSizeLimitsExceeded:
		return inCDW12
	case spec.InvalidProtectionInfo:
		return inPRInfo
	case spec.InvalidPRPOffset:
		if e.PRP1&3 != 0 {
			return inPRP1
		}
		return inPRP2
	case spec.InvalidSGLSegment, spec.InvalidNumberOfSGLDescriptors, spec.DataSGLLengthInvalid, spec.SGLDescriptorTypeInvalid:
		return inPRP1
	case spec.MetadataSGLLengthInvalid:
		return inMetadata
	case spec.InvalidOpcode:
		return inOpcode
	}
	return noLocation
}
