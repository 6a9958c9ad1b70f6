package virtionet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"time"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link"
)

// MaxPairs is the most queue pairs of a card.
const MaxPairs = 64

// Config describes a card. Only Link has to be given.
type Config struct {
	// Link is what the card is attached to. The caller closes it after the card.
	Link link.Link
	// MAC is the card's address. nil means a random one, administered locally: a card that
	// is to keep its address across restarts needs one.
	MAC net.HardwareAddr
	// Pairs is the number of queue pairs, 1 to MaxPairs. 0 means 1. A driver uses one until
	// it asks for more.
	Pairs int
	// MTU is what the driver is told, 68 to 65,535 bytes. 0 means that it is told nothing:
	// drivers then begin with 1,500.
	MTU int
	// QueueSize is the largest size of a queue, a power of two from 64 to 32,768. 0 means
	// 1,024: Linux takes what is offered, and at ten million frames a second that is what
	// arrives while a sleeping driver is woken.
	QueueSize int
	// Without takes bits away from the features that are offered, those of the rings
	// included. Features that need them are not offered either.
	Without uint64
	// Doorbells is how the card learns of new buffers.
	Doorbells virtio.Doorbells
	// IdlePoll is the longest pause between two looks at idle queues with mapped doorbells.
	// 0 means engine.DefaultMaxSleep.
	IdlePoll time.Duration
	// Speed is what the driver is told, Mbit/s. 0 means unknown. The duplex mode is full
	// if the speed is known, unless HalfDuplex says otherwise.
	Speed      uint32
	HalfDuplex bool
}

// ErrConfig is found by errors.Is in what New says of a Config.
var ErrConfig = errors.New("virtio-net: invalid configuration")

func configError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
}

const (
	defaultQueueSize = 1024
	minQueueSize     = 64
	maxQueueSize     = 32768
	maxSpeed         = 0x7fffffff
	maxMTU           = 65535
)

// complete checks c and fills in what is left out.
func (c *Config) complete() error {
	orDefault(&c.Pairs, 1)
	orDefault(&c.QueueSize, defaultQueueSize)
	if c.MAC == nil {
		c.MAC = randomMAC()
	}
	switch {
	case c.Link == nil:
		return configError("no link")
	case len(c.MAC) != macSize:
		return configError("an address of %d bytes: %v", len(c.MAC), c.MAC)
	case c.MAC[0]&1 != 0:
		return configError("%v is the address of a group", c.MAC)
	case [macSize]byte(c.MAC) == [macSize]byte{}:
		return configError("the address is zero")
	case c.Pairs < 1 || c.Pairs > MaxPairs:
		return configError("%d queue pairs is not from 1 to %d", c.Pairs, MaxPairs)
	case c.MTU != 0 && (c.MTU < spec.MinMTU || c.MTU > maxMTU):
		return configError("an MTU of %d bytes is not from %d to %d", c.MTU, spec.MinMTU, maxMTU)
	case c.QueueSize < minQueueSize || c.QueueSize > maxQueueSize || bits.OnesCount(uint(c.QueueSize)) != 1:
		return configError("queues of %d entries: not a power of two from %d to %d", c.QueueSize, minQueueSize, maxQueueSize)
	case c.Speed > maxSpeed:
		return configError("a speed of %d Mbit/s, at most %d", c.Speed, maxSpeed)
	}
	return nil
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func randomMAC() net.HardwareAddr {
	m := make(net.HardwareAddr, macSize)
	_, _ = rand.Read(m)   // never fails
	m[0] = m[0]&^1 | 1<<1 // one station, administered locally
	return m
}
