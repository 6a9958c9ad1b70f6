package virtio

import (
	"encoding/binary"
	"sync"

	"vfiouser/devices/virtio/spec"
)

// registers is the common configuration (4.1.4.3) of one client. The reactor reads and
// writes it, the control goroutine makes the device what it says. The lock is held for a
// few instructions only.
type registers struct {
	offered uint64
	maxSize uint16

	mu           sync.Mutex
	deviceSelect uint32
	driverSelect uint32
	accepted     uint64 // as the driver wrote it; frozen by FEATURES_OK
	status       spec.Status
	configVector uint16
	selected     uint16
	queues       []queueRegisters
	generation   uint8

	// A reset takes its time if the device has run: it is asked for by counting epoch, and
	// done when settled has come up. Until then old is shown.
	epoch, settled uint64
	old            spec.Status
	ran            bool // DRIVER_OK was set in this epoch
}

// queueRegisters are those of one queue.
type queueRegisters struct {
	size                 uint16
	vector               uint16
	enabled              bool
	desc, driver, device uint64
	resets, settled      uint64 // as epoch and settled, for the queue
}

func newRegisters(cfg *Config) *registers {
	r := &registers{
		offered: cfg.Features, maxSize: uint16(cfg.QueueSize),
		queues: make([]queueRegisters, cfg.Queues),
	}
	r.clear()
	return r
}

// clear puts everything to what it is after a reset. The generation goes on, so that a
// driver cannot take one configuration for another.
func (r *registers) clear() {
	r.deviceSelect, r.driverSelect, r.accepted, r.status = 0, 0, 0, 0
	r.configVector, r.selected = spec.NoVector, 0
	for i := range r.queues {
		r.queues[i] = queueRegisters{size: r.maxSize, vector: spec.NoVector}
	}
}

// reset begins a reset, or does all of it if the device has not run. It says whether there
// is something to wait for.
func (r *registers) reset() (pending bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status != 0 {
		r.old = r.status
	}
	r.clear()
	pending = r.ran || r.epoch != r.settled
	r.ran = false
	r.epoch++
	if !pending {
		r.settled = r.epoch
	}
	return pending
}

// shown is the status as the driver reads it: not 0 before a reset is done.
func (r *registers) shown() spec.Status {
	if r.status == 0 && r.epoch != r.settled {
		return r.old
	}
	return r.status
}

// queue is the one that is selected, nil if there is no such queue.
func (r *registers) queue() *queueRegisters {
	if int(r.selected) < len(r.queues) {
		return &r.queues[r.selected]
	}
	return nil
}

func (r *registers) negotiated(feature uint64) bool {
	return r.status.Has(spec.StatusFeaturesOK) && r.accepted&feature != 0
}

// read is what the common configuration holds.
func (r *registers) read() (b [spec.CommonSize]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	le := binary.LittleEndian
	le.PutUint32(b[spec.DeviceFeatureSelect:], r.deviceSelect)
	le.PutUint32(b[spec.DeviceFeature:], featureWord(r.offered, r.deviceSelect))
	le.PutUint32(b[spec.DriverFeatureSelect:], r.driverSelect)
	le.PutUint32(b[spec.DriverFeature:], featureWord(r.accepted, r.driverSelect))
	le.PutUint16(b[spec.ConfigMSIXVector:], r.configVector)
	le.PutUint16(b[spec.NumQueues:], uint16(len(r.queues)))
	b[spec.DeviceStatus] = uint8(r.shown())
	b[spec.ConfigGeneration] = r.generation
	le.PutUint16(b[spec.QueueSelect:], r.selected)
	q := r.queue()
	if q == nil {
		le.PutUint16(b[spec.QueueMSIXVector:], spec.NoVector)
		return b
	}
	le.PutUint16(b[spec.QueueSize:], q.size)
	le.PutUint16(b[spec.QueueMSIXVector:], q.vector)
	le.PutUint16(b[spec.QueueEnable:], flag(q.enabled))
	le.PutUint16(b[spec.QueueNotifyOff:], r.selected)
	le.PutUint64(b[spec.QueueDesc:], q.desc)
	le.PutUint64(b[spec.QueueDriver:], q.driver)
	le.PutUint64(b[spec.QueueDevice:], q.device)
	if r.negotiated(spec.FeatureNotifConfigData) {
		le.PutUint16(b[spec.QueueNotifConfigData:], r.selected)
	}
	if r.negotiated(spec.FeatureRingReset) {
		le.PutUint16(b[spec.QueueReset:], flag(q.resets != q.settled))
	}
	return b
}

func flag(on bool) uint16 {
	if on {
		return 1
	}
	return 0
}

// featureWord is the 32 bits of a set of 64 that a selector shows.
func featureWord(features uint64, selector uint32) uint32 {
	if selector > 1 {
		return 0
	}
	return uint32(features >> (32 * selector))
}

// needsReset sets DEVICE_NEEDS_RESET, once, if the device still runs for the driver that
// epoch began with; false if it does not.
func (r *registers) needsReset(epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch != epoch || !r.status.Has(spec.StatusDriverOK) || r.status.Has(spec.StatusNeedsReset) {
		return false
	}
	r.status |= spec.StatusNeedsReset
	return true
}

// running is the epoch, and whether there is a driver that wants to hear of the device.
func (r *registers) running() (epoch uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch, r.status.Has(spec.StatusDriverOK)
}

// wanted is what the registers want the device to be.
type wanted struct {
	epoch    uint64
	run      bool
	features uint64
	queues   []queueRegisters
}

// want copies it into w.
func (r *registers) want(w *wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.epoch, w.features = r.epoch, r.accepted
	w.run = r.status.Has(spec.StatusDriverOK) && !r.status.Has(spec.StatusFailed)
	w.queues = append(w.queues[:0], r.queues...)
}

// resetDone ends the reset that epoch began with, if the device was not reset since: that may
// have been nothing to wait for, and then nobody comes to end it again.
func (r *registers) resetDone(epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == epoch {
		r.settled = epoch
	}
}

// queueResetDone ends resets of queue i, if the device was not reset since.
func (r *registers) queueResetDone(epoch uint64, i int, resets uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == epoch {
		r.queues[i].settled = resets
	}
}
