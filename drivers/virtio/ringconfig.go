package virtio

import (
	"fmt"

	"vfiouser/devices/virtio/spec"
)

// MaxSegments is the largest number of segments of a chain.
const MaxSegments = 1024

// RingConfig describes a ring.
type RingConfig struct {
	Size uint16 // entries: a power of two for a split ring
	// As negotiated: RING_PACKED, INDIRECT_DESC, EVENT_IDX, IN_ORDER.
	Packed, Indirect, EventIdx, InOrder bool
	// Segments is how many segments a chain may have, at most; 0 means 1. With Indirect each entry has a table of so many
	// descriptors.
	Segments int
}

func (cfg *RingConfig) check() error {
	if cfg.Segments == 0 {
		cfg.Segments = 1
	}
	switch {
	case cfg.Size == 0 || cfg.Size > spec.MaxQueueSize:
		return fmt.Errorf("%w: ring of %d entries", ErrInvalid, cfg.Size)
	case !cfg.Packed && cfg.Size&(cfg.Size-1) != 0:
		return fmt.Errorf("%w: split ring of %d entries, must be a power of two", ErrInvalid, cfg.Size)
	case cfg.Segments < 1 || cfg.Segments > MaxSegments:
		return fmt.Errorf("%w: chains of %d segments, at most %d", ErrInvalid, cfg.Segments, MaxSegments)
	}
	return nil
}

// layout says where the parts of a ring lie in its memory, bytes.
type layout struct{ driver, device, tables, size uint64 }

// line keeps apart what different cores write; it is more than every alignment that the specification asks for.
const line = 64

func (cfg *RingConfig) layout() (l layout) {
	round := func(v uint64) uint64 { return (v + line - 1) &^ (line - 1) }
	l.driver = round(spec.DescBytes(cfg.Size))
	if cfg.Packed {
		l.device = l.driver + line
		l.tables = l.device + line
	} else {
		l.device = round(l.driver + spec.AvailBytes(cfg.Size))
		l.tables = round(l.device + spec.UsedBytes(cfg.Size))
	}
	l.size = l.tables
	if cfg.Indirect && cfg.Segments > 1 {
		l.size += uint64(cfg.Segments) * spec.DescBytes(cfg.Size)
	}
	return l
}

// MemorySize is how much memory the ring takes, in bytes.
func (cfg RingConfig) MemorySize() (uint64, error) {
	if err := cfg.check(); err != nil {
		return 0, err
	}
	return cfg.layout().size, nil
}
