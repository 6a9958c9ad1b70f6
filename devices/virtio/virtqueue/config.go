package virtqueue

import (
	"fmt"
	"math"

	"vfiouser/devices/virtio/spec"
)

// Config describes a queue as the driver has set it up and as features were negotiated.
type Config struct {
	Size                 uint16 // entries; split: a power of two up to 32,768; packed: 1 to 32,768
	Desc, Driver, Device uint64 // guest addresses of the descriptor, driver and device areas

	Packed, Indirect, EventIdx, InOrder bool // VIRTIO_F_RING_PACKED and so on

	// MaxChain bounds the buffers of one chain and the entries of an indirect table. 0: the
	// larger of Size and 1,024, as drivers put into a table what is too long for a small ring.
	MaxChain int
	// MaxBytes bounds the bytes of one chain that is copied by message. 0: 1 MiB.
	MaxBytes int
}

const (
	defaultMaxChain = 1024
	defaultMaxBytes = 1 << 20
)

// area is a part of the ring.
type area struct {
	name        string
	addr, bytes uint64
	align       uint64
}

// areas are the descriptor, driver and device areas (2.7, 2.8.10.1).
func (c *Config) areas() [3]area {
	if c.Packed {
		return [3]area{
			{"descriptor ring", c.Desc, spec.DescBytes(c.Size), spec.DescAlign},
			{"driver event suppression", c.Driver, spec.EventSize, spec.EventAlign},
			{"device event suppression", c.Device, spec.EventSize, spec.EventAlign},
		}
	}
	return [3]area{
		{"descriptor table", c.Desc, spec.DescBytes(c.Size), spec.DescAlign},
		{"available ring", c.Driver, spec.AvailBytes(c.Size), spec.AvailAlign},
		{"used ring", c.Device, spec.UsedBytes(c.Size), spec.UsedAlign},
	}
}

func (c *Config) check() error {
	switch {
	case c.Size == 0 || c.Size > spec.MaxQueueSize:
		return fmt.Errorf("%w: %d entries", ErrConfig, c.Size)
	case !c.Packed && c.Size&(c.Size-1) != 0:
		return fmt.Errorf("%w: %d entries, no power of two", ErrConfig, c.Size)
	case c.MaxChain < 0 || c.MaxBytes < 0:
		return fmt.Errorf("%w: negative bound", ErrConfig)
	}
	for _, a := range c.areas() {
		switch {
		case a.addr%a.align != 0:
			return fmt.Errorf("%w: %s at %#x is not aligned to %d bytes", ErrConfig, a.name, a.addr, a.align)
		case a.bytes-1 > math.MaxUint64-a.addr:
			return fmt.Errorf("%w: %s at %#x goes past the end of the address space", ErrConfig, a.name, a.addr)
		}
	}
	return nil
}

// defaults fills in the bounds.
func (c *Config) defaults() {
	if c.MaxChain == 0 {
		c.MaxChain = max(int(c.Size), defaultMaxChain)
	}
	c.MaxChain = min(c.MaxChain, spec.MaxQueueSize)
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	c.MaxBytes = min(c.MaxBytes, math.MaxUint32)
}
