package nvme

import "vfiouser/devices/nvme/spec"

// checkHostID wants host identifiers of one size in the whole subsystem (Base 2.0,
// 5.27.1.25).
func checkHostID(h *host, _ uint32, v featureValue) spec.Status {
	id, extended := hostIDOf(v)
	return h.c.subsystem.checkHostID(h.c, id, extended)
}

func hostIDOf(v featureValue) (id spec.HostID, extended bool) {
	copy(id[:], v.Data)
	return id, v.Number&extendedHostID != 0
}

func applyHostID(h *host, _ uint32, v *featureValue) spec.Status {
	id, extended := hostIDOf(*v)
	return h.c.subsystem.setHostID(h.c, id, extended)
}

// hostIDChanged follows resets and states that have arrived. An identifier of a size that
// another controller has made impossible meanwhile counts as none.
func (h *host) hostIDChanged() {
	id, extended := hostIDOf(h.value(spec.FeatHostIdentifier, 0))
	if !h.c.subsystem.setHostID(h.c, id, extended).OK() {
		h.c.subsystem.setHostID(h.c, spec.HostID{}, false)
	}
}

// noticeMaskChanged makes effective which reservation notifications the host does not want.
func (h *host) noticeMaskChanged() {
	masks := make(map[uint32]uint8)
	for key, v := range h.features.values {
		if key.ID == spec.FeatReservationMask {
			masks[key.Part] = uint8(v.Number)
		}
	}
	r := &h.c.subsystem.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	r.associations[h.c.index].masks = masks
}
