package nvme

import (
	"encoding/binary"
	"time"

	"vfiouser/devices/nvme/spec"
)

// clock is the host's, in milliseconds since 1970, 48 bits; without a host's it counts from
// the reset (Base 2.0, 5.27.1.11).
type clock struct {
	origin time.Time // when it was 0, by ours
	set    bool      // by the host
}

const (
	timestampOrigin = 1 << 49 // the host has set it: 001b in bits 3:1 of byte 6
	maxTimestamp    = 1<<48 - 1
)

func (c clock) now() uint64 { return uint64(time.Since(c.origin).Milliseconds()) & maxTimestamp }

// value is the value of the feature.
func (c clock) value() uint64 {
	if c.set {
		return c.now() | timestampOrigin
	}
	return c.now()
}

// clockAt is a clock that shows ms now.
func clockAt(ms uint64, set bool) *clock {
	return &clock{time.Now().Add(-time.Duration(ms) * time.Millisecond), set}
}

func currentTimestamp(h *host, _ uint32, _ featureValue) featureValue {
	return featureValue{Data: binary.LittleEndian.AppendUint64(nil, h.c.clock.Load().value())}
}

func applyTimestamp(h *host, _ uint32, v *featureValue) spec.Status {
	before := binary.LittleEndian.AppendUint64(nil, h.c.clock.Load().value())
	sinceReset := uint64(time.Since(h.features.reset).Milliseconds())
	h.c.clock.Store(clockAt(binary.LittleEndian.Uint64(v.Data)&maxTimestamp, true))
	h.record(spec.EventTimestamp, 1, binary.LittleEndian.AppendUint64(before, sinceReset))
	return spec.Success
}
