package virtio

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"vfiouser/devices/virtio/spec"
)

// Doorbells says how a device learns that a queue has new buffers.
type Doorbells uint8

const (
	// Auto: notifications are messages to the reactor, or eventfds where the client can
	// use those.
	Auto Doorbells = iota
	// Trap: every notification is a message to the reactor.
	Trap
	// Mmap lets the client map the notification area. Its writes are silent, so queues
	// are polled, with growing pauses when they are idle.
	Mmap
)

var doorbellNames = [...]string{Auto: "auto", Trap: "trap", Mmap: "mmap"}

// String gives the name that ParseDoorbells takes.
func (d Doorbells) String() string {
	if int(d) < len(doorbellNames) {
		return doorbellNames[d]
	}
	return fmt.Sprintf("Doorbells(%d)", uint8(d))
}

// ParseDoorbells takes auto, trap or mmap.
func ParseDoorbells(s string) (Doorbells, error) {
	for d, name := range doorbellNames {
		if s == name {
			return Doorbells(d), nil
		}
	}
	return 0, fmt.Errorf("virtio: unknown doorbell mode %q; known are auto, trap and mmap", s)
}

// Limits of a Config.
const (
	MaxQueues     = 1024 // their notification addresses lie in one page
	MaxConfigSize = 4096 // bytes
)

// Features are the bits of rings and negotiation that the transport can serve, beside those
// of the type of device; VERSION_1 is offered in any case. ORDER_PLATFORM costs drivers
// barriers that a device in software does not need.
const Features = spec.FeatureIndirectDesc | spec.FeatureEventIdx | spec.FeatureVersion1 | spec.FeatureAccessPlatform |
	spec.FeatureRingPacked | spec.FeatureInOrder | spec.FeatureOrderPlatform | spec.FeatureNotificationData |
	spec.FeatureNotifConfigData | spec.FeatureRingReset

// Config describes a virtio function.
type Config struct {
	// Type is the device type (5), 1 to 63; 1 is a network card.
	Type uint16
	// Class is the PCI class code, 24 bits: 0x020000 is an Ethernet card.
	Class uint32
	// Queues is the number of virtqueues, 1 to MaxQueues.
	Queues int
	// QueueSize is the largest size of each, entries: a power of two up to
	// spec.MaxQueueSize. 0 means 256.
	QueueSize int
	// Features are offered: the device's own bits and those of Features that are wanted.
	Features uint64
	// ConfigSize is the size of the device-specific configuration in bytes, up to
	// MaxConfigSize; 0 if there is none.
	ConfigSize int
	Doorbells  Doorbells
	// IdlePoll is the longest pause between two looks at idle queues in mode Mmap. 0 means
	// engine.DefaultMaxSleep.
	IdlePoll time.Duration
	// SubVendor and SubDevice are the PCI subsystem ids, which tell drivers nothing. 0
	// means the function's own.
	SubVendor, SubDevice uint16
}

// ErrConfig is found by errors.Is in what New says of a Config.
var ErrConfig = errors.New("virtio: invalid configuration")

func configError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
}

const defaultQueueSize = 256

// complete checks c and fills in what is left out.
func (c *Config) complete() error {
	if c.QueueSize == 0 {
		c.QueueSize = defaultQueueSize
	}
	if c.SubVendor == 0 {
		c.SubVendor = spec.PCIVendor
	}
	if c.SubDevice == 0 {
		c.SubDevice = spec.PCIDeviceBase + c.Type
	}
	c.Features |= spec.FeatureVersion1
	switch unknown := c.Features & spec.RingFeatures &^ Features; {
	case c.Type < 1 || c.Type > 63:
		return configError("device type %d is not from 1 to 63", c.Type)
	case c.Class > 0xffffff:
		return configError("class code %#x has more than 24 bits", c.Class)
	case c.Queues < 1 || c.Queues > MaxQueues:
		return configError("%d queues is not from 1 to %d", c.Queues, MaxQueues)
	case c.QueueSize < 1 || c.QueueSize > spec.MaxQueueSize || bits.OnesCount(uint(c.QueueSize)) != 1:
		return configError("queues of %d entries: not a power of two up to %d", c.QueueSize, spec.MaxQueueSize)
	case c.ConfigSize < 0 || c.ConfigSize > MaxConfigSize:
		return configError("%d bytes of configuration, at most %d", c.ConfigSize, MaxConfigSize)
	case c.IdlePoll < 0:
		return configError("a pause of %v between two looks at idle queues", c.IdlePoll)
	case c.Doorbells > Mmap:
		return configError("doorbell mode %v", c.Doorbells)
	case unknown != 0:
		return configError("features that the transport has not: %s", spec.FeatureNames(unknown))
	}
	return nil
}
