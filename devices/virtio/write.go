package virtio

import (
	"encoding/binary"
	"math/bits"

	"vfiouser/devices/virtio/spec"
)

// field is a register of the common configuration that can be written, or a half of one.
type field struct {
	size  int // bytes; an access of another width is ignored (4.1.3.1)
	write func(h *host, v uint32)
}

// fields has them by offset. What has no entry is read-only.
var fields = [spec.CommonSize]field{
	spec.DeviceFeatureSelect: {4, (*host).writeDeviceSelect},
	spec.DriverFeatureSelect: {4, (*host).writeDriverSelect},
	spec.DriverFeature:       {4, (*host).writeFeatures},
	spec.ConfigMSIXVector:    {2, (*host).writeConfigVector},
	spec.DeviceStatus:        {1, func(h *host, v uint32) { h.writeStatus(spec.Status(v)) }},
	spec.QueueSelect:         {2, (*host).writeSelect},
	spec.QueueSize:           {2, (*host).writeSize},
	spec.QueueMSIXVector:     {2, (*host).writeQueueVector},
	spec.QueueEnable:         {2, (*host).writeEnable},
	spec.QueueDesc:           {4, func(h *host, v uint32) { h.writeAddress(v, low(descArea)) }},
	spec.QueueDesc + 4:       {4, func(h *host, v uint32) { h.writeAddress(v, high(descArea)) }},
	spec.QueueDriver:         {4, func(h *host, v uint32) { h.writeAddress(v, low(driverArea)) }},
	spec.QueueDriver + 4:     {4, func(h *host, v uint32) { h.writeAddress(v, high(driverArea)) }},
	spec.QueueDevice:         {4, func(h *host, v uint32) { h.writeAddress(v, low(deviceArea)) }},
	spec.QueueDevice + 4:     {4, func(h *host, v uint32) { h.writeAddress(v, high(deviceArea)) }},
	spec.QueueReset:          {2, (*host).writeQueueReset},
}

// writeCommon is a write to the common configuration.
func (h *host) writeCommon(off uint64, p []byte) {
	if len(p) == 8 && off >= spec.QueueDesc && off < spec.QueueNotifConfigData && off%8 == 0 {
		h.writeCommon(off, p[:4])
		h.writeCommon(off+4, p[4:])
		return
	}
	if off >= uint64(len(fields)) || fields[off].size != len(p) {
		return
	}
	var v [4]byte
	copy(v[:], p)
	fields[off].write(h, binary.LittleEndian.Uint32(v[:]))
}

func (h *host) writeDeviceSelect(v uint32) { h.regs.set(func(r *registers) { r.deviceSelect = v }) }

func (h *host) writeDriverSelect(v uint32) { h.regs.set(func(r *registers) { r.driverSelect = v }) }

// writeFeatures takes 32 of the driver's feature bits. What was not offered is kept and
// makes FEATURES_OK fail; beyond the 64 bits that there are nothing is kept (4.1.4.3.1).
func (h *host) writeFeatures(v uint32) {
	h.regs.set(func(r *registers) {
		if r.driverSelect > 1 || r.status.Has(spec.StatusFeaturesOK) {
			return
		}
		shift := 32 * r.driverSelect
		r.accepted = r.accepted&^(0xffffffff<<shift) | uint64(v)<<shift
	})
}

// writeStatus takes the steps of a driver. A bit that is set stays until the reset, which
// is writing 0 (2.1.1).
func (h *host) writeStatus(v spec.Status) {
	if v == 0 {
		h.reset()
		return
	}
	r := h.regs
	r.mu.Lock()
	status, accepted := r.status, r.accepted
	r.mu.Unlock()
	added := v & spec.StatusByDriver &^ status
	if added.Has(spec.StatusFeaturesOK) && !h.acceptable(accepted) {
		added &^= spec.StatusFeaturesOK
	}
	if !(status | added).Has(spec.StatusFeaturesOK) {
		added &^= spec.StatusDriverOK
	}
	r.set(func(r *registers) {
		r.status |= added
		r.ran = r.ran || added.Has(spec.StatusDriverOK)
	})
	if added&(spec.StatusDriverOK|spec.StatusFailed) != 0 {
		h.follow()
	}
}

// acceptable says whether the device can go on with the driver's features (2.2.2).
func (h *host) acceptable(accepted uint64) bool {
	return accepted&^h.regs.offered == 0 && accepted&spec.FeatureVersion1 != 0 && h.f.device.CheckFeatures(accepted)
}

// reset is a reset by the driver or the client. The queues are stopped on the control
// goroutine.
func (h *host) reset() {
	h.interrupts.unbind()
	if h.regs.reset() {
		h.follow()
	}
}

// vector is v, or NoVector if there is no such vector.
func (h *host) vector(v uint32) uint16 {
	if v >= uint32(h.f.vectors()) {
		return spec.NoVector
	}
	return uint16(v)
}

func (h *host) writeConfigVector(v uint32) {
	vector := h.vector(v)
	h.regs.set(func(r *registers) { r.configVector = vector })
	h.interrupts.bind(&h.interrupts.config, vector)
}

func (h *host) writeQueueVector(v uint32) {
	vector, i := h.vector(v), -1
	h.regs.set(func(r *registers) {
		if q := r.queue(); q != nil {
			q.vector, i = vector, int(r.selected)
		}
	})
	if i >= 0 {
		h.interrupts.bind(&h.interrupts.queues[i], vector)
	}
}

func (h *host) writeSelect(v uint32) { h.regs.set(func(r *registers) { r.selected = uint16(v) }) }

// configure changes the selected queue, unless it is enabled: then it is too late
// (4.1.4.3.2).
func (r *registers) configure(change func(q *queueRegisters)) {
	r.set(func(r *registers) {
		if q := r.queue(); q != nil && !q.enabled {
			change(q)
		}
	})
}

// writeSize takes a size that the ring can have.
func (h *host) writeSize(v uint32) {
	r := h.regs
	r.configure(func(q *queueRegisters) {
		packed := r.accepted&r.offered&spec.FeatureRingPacked != 0
		if v > 0 && v <= uint32(r.maxSize) && (packed || bits.OnesCount32(v) == 1) {
			q.size = uint16(v)
		}
	})
}

type areaOf func(q *queueRegisters) *uint64

func descArea(q *queueRegisters) *uint64   { return &q.desc }
func driverArea(q *queueRegisters) *uint64 { return &q.driver }
func deviceArea(q *queueRegisters) *uint64 { return &q.device }

func low(area areaOf) func(q *queueRegisters, v uint32) {
	return func(q *queueRegisters, v uint32) { *area(q) = *area(q)&^0xffffffff | uint64(v) }
}

func high(area areaOf) func(q *queueRegisters, v uint32) {
	return func(q *queueRegisters, v uint32) { *area(q) = *area(q)&0xffffffff | uint64(v)<<32 }
}

func (h *host) writeAddress(v uint32, part func(q *queueRegisters, v uint32)) {
	h.regs.configure(func(q *queueRegisters) { part(q, v) })
}

// writeEnable enables the selected queue. Writing 0 is forbidden (4.1.4.3.2). What kind of
// ring it is was not agreed on before FEATURES_OK, and a reset of the queue has to be
// waited for.
func (h *host) writeEnable(v uint32) {
	run := false
	r := h.regs
	r.configure(func(q *queueRegisters) {
		if v == 1 && r.status.Has(spec.StatusFeaturesOK) && q.resets == q.settled {
			q.enabled = true
			run = r.status.Has(spec.StatusDriverOK)
		}
	})
	if run {
		h.follow()
	}
}

// writeQueueReset resets the selected queue (2.6.1). Its size, addresses and vector stay,
// for a driver that does not want others.
func (h *host) writeQueueReset(v uint32) {
	ask := false
	h.regs.set(func(r *registers) {
		q := r.queue()
		if q == nil || v != 1 || !r.negotiated(spec.FeatureRingReset) {
			return
		}
		q.enabled = false
		if r.ran || q.resets != q.settled {
			q.resets++
			ask = true
		}
	})
	if ask {
		h.follow()
	}
}

func (r *registers) set(change func(r *registers)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}
