package nvme

import "vfiouser/devices/nvme/spec"

// enduranceGroup is the only endurance group: all namespaces are in it.
const enduranceGroup = 1

// enduranceLog is the log of an endurance group (Base 2.0, 5.16.1.10).
func (h *host) enduranceLog(r *logRequest) ([]byte, spec.Status) {
	if r.identifier != enduranceGroup {
		return nil, badField
	}
	s := h.smartPage()
	return page(spec.EnduranceGroupSize, &spec.EnduranceGroup{
		AvailableSpare:    s.AvailableSpare,
		SpareThreshold:    s.SpareThreshold,
		PercentageUsed:    s.PercentageUsed,
		UnitsRead:         h.c.smart.gigabytes(h.c.smart.bytesRead.Load()),
		UnitsWritten:      h.c.smart.gigabytes(h.c.smart.bytesWritten.Load()),
		MediaUnitsWritten: h.c.smart.gigabytes(h.c.smart.bytesWritten.Load()),
		HostReads:         s.HostReads,
		HostWrites:        s.HostWrites,
		MediaErrors:       s.MediaErrors,
		ErrorEntries:      s.ErrorEntries,
	}), spec.Success
}

// gigabytes is bytes in units of 10^9, rounded up.
func (l *smartLog) gigabytes(bytes uint64) uint64 { return (bytes + 999_999_999) / 1_000_000_000 }

// enduranceFeature says of which critical warnings of a group the host wants to hear (Base 2.0,
// 5.27.1.20). There never is one, as the storage does not wear.
var enduranceFeature = feature{
	caps: saveable, scope: spec.ScopeEnduranceGroup, mask: 0x00ffffff,
	part: func(_ *host, e *spec.SubmissionEntry) (uint32, spec.Status) {
		if e.CDW11&0xffff != enduranceGroup {
			return 0, badField
		}
		return enduranceGroup, spec.Success
	},
	parts:    func(*host) []uint32 { return []uint32{enduranceGroup} },
	fallback: func(_ *host, part uint32) featureValue { return featureValue{Number: part} },
	check: func(_ *host, part uint32, v featureValue) spec.Status {
		if v.Number&0xffff != part {
			return badField
		}
		return spec.Success
	},
}
