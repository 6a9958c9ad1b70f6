package nvme

import (
	"cmp"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// checkRecovery refuses errors for deallocated blocks (DULBE), which NSFEAT does not offer.
func checkRecovery(_ *host, _ uint32, v featureValue) spec.Status {
	const deallocatedErrors = 1 << 16
	if v.Number&deallocatedErrors != 0 {
		return badField
	}
	return spec.Success
}

func offersWriteCache(h *host) bool { return h.c.volatileCache() }

// applyWriteCache flushes before the cache is disabled: what was written before is not to stay
// volatile either.
func applyWriteCache(h *host, _ uint32, v *featureValue) spec.Status {
	if v.Number != 0 {
		return spec.Success
	}
	h.c.writeThrough.Store(true)
	st := h.c.flushAll(&h.data)
	if !st.OK() {
		h.writeCacheChanged()
	}
	return st
}

func (h *host) writeCacheChanged() {
	h.c.writeThrough.Store(h.c.volatileCache() && h.number(spec.FeatVolatileWriteCache) == 0)
}

// The number of queues is what there are, whatever is asked for.
func allQueues(h *host, _ uint32) featureValue {
	n := uint32(h.c.cfg.Queues - 1)
	return featureValue{Number: n | n<<16}
}

func checkQueues(_ *host, _ uint32, v featureValue) spec.Status {
	if v.Number&0xffff == 0xffff || v.Number>>16 == 0xffff {
		return badField
	}
	return spec.Success
}

func grantQueues(h *host, part uint32, v *featureValue) spec.Status {
	if h.queues.Load() > 0 {
		return spec.CommandSequenceError | spec.StatusDNR
	}
	*v = allQueues(h, part)
	return spec.Success
}

const coalescingDisable = 1 << 16

// vectorFeature is the interrupt vector configuration, a part for each vector.
var vectorFeature = feature{
	caps: saveable, scope: spec.ScopeController, mask: coalescingDisable | 0xffff,
	part: func(h *host, e *spec.SubmissionEntry) (uint32, spec.Status) {
		if v := e.CDW11 & 0xffff; int(v) < h.c.vectors() {
			return v, spec.Success
		}
		return 0, badField
	},
	parts: func(h *host) []uint32 {
		parts := make([]uint32, h.c.vectors())
		for i := range parts {
			parts[i] = uint32(i)
		}
		return parts
	},
	fallback: func(_ *host, part uint32) featureValue { return featureValue{Number: part} },
	check: func(_ *host, part uint32, v featureValue) spec.Status {
		if v.Number&0xffff != part {
			return badField
		}
		return spec.Success
	},
	changed: (*host).coalesce,
}

// checkHostBehavior wants flags that are 0 or 1, and none for what is not offered: extended
// LBA formats (CTRATT.ELBAS), and Copy descriptors of other formats (OCFS).
func checkHostBehavior(h *host, _ uint32, v featureValue) spec.Status {
	var b spec.HostBehavior
	b.Get(v.Data)
	offered := h.identifyController()
	switch {
	case slices.Max(v.Data[:4]) > 1,
		b.ExtendedLBAFormats && offered.CTRATT&spec.CTRATTExtendedLBAFormats == 0,
		b.CopyFormats&^offered.OCFS != 0:
		return badField
	}
	return spec.Success
}

func (h *host) hostBehaviorChanged() {
	var b spec.HostBehavior
	b.Get(h.value(spec.FeatHostBehavior, 0).Data)
	h.c.extendedFormats.Store(b.ExtendedLBAFormats)
}

const extendedHostID = 1 << 0 // EXHID of feature 81h

// hostIdentifierFeature has 8 bytes, or 16 with EXHID (Base 2.0, 5.27.1.25).
var hostIdentifierFeature = feature{
	caps: changeable, scope: spec.ScopeController, mask: extendedHostID, size: spec.HostIdentifierSize,
	length: func(e *spec.SubmissionEntry) int {
		if e.CDW11&extendedHostID != 0 {
			return spec.HostIdentifierSize
		}
		return spec.HostIdentifierSize / 2
	},
	check:   checkHostID,
	apply:   applyHostID,
	changed: (*host).hostIDChanged,
	current: func(_ *host, _ uint32, v featureValue) featureValue {
		v.Number = 0 // EXHID is of the command
		return v
	},
}

// lbaRangeFeature is kept for the host, and has no other meaning (NVM command set 1.0, 4.1.3.2).
var lbaRangeFeature = feature{
	caps: changeable | spec.FeatureNamespace, scope: spec.ScopeNamespace, persistent: true,
	mask: spec.LBARanges - 1, size: spec.LBARanges * spec.LBARangeSize,
	fallback: func(h *host, part uint32) featureValue {
		v := featureValue{Data: make([]byte, spec.LBARanges*spec.LBARangeSize)}
		if ns := h.c.namespace(part); ns != nil {
			(&spec.LBARange{Attributes: spec.LBARangeOverwritable, Blocks: ns.blocks}).Put(v.Data)
		}
		return v
	},
	check: func(h *host, part uint32, v featureValue) spec.Status {
		ranges := make([]spec.LBARange, v.Number+1)
		for i := range ranges {
			r := &ranges[i]
			r.Get(v.Data[i*spec.LBARangeSize:])
			if ns := h.c.namespace(part); ns == nil || r.Blocks == 0 || !ns.has(r.LBA, r.Blocks) {
				return spec.LBAOutOfRange | spec.StatusDNR
			}
		}
		slices.SortFunc(ranges, func(a, b spec.LBARange) int { return cmp.Compare(a.LBA, b.LBA) })
		for i := range ranges[1:] {
			if ranges[i].LBA+ranges[i].Blocks > ranges[i+1].LBA {
				return spec.OverlappingRange | spec.StatusDNR
			}
		}
		return spec.Success
	},
}
