package nvme

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"vfiouser/block"
)

// DoorbellMode says how a controller learns that a queue has new entries.
type DoorbellMode uint8

const (
	// Auto is Shadow.
	Auto DoorbellMode = iota
	// Trap: every doorbell is a message to the reactor.
	Trap
	// Shadow offers the Doorbell Buffer Config command. Doorbells are trapped until
	// the host configures the buffers, and the admin queue's always are; then the
	// host writes the doorbell register only when the controller sleeps.
	Shadow
	// Mmap lets the client map the doorbell registers. Its writes are silent, so the
	// controller polls, with growing pauses when it is idle.
	Mmap
)

// String gives the name that ParseDoorbellMode takes.
func (m DoorbellMode) String() string {
	if int(m) < len(doorbellModes) {
		return doorbellModes[m]
	}
	return fmt.Sprintf("DoorbellMode(%d)", uint8(m))
}

var doorbellModes = [...]string{Auto: "auto", Trap: "trap", Shadow: "shadow", Mmap: "mmap"}

// ParseDoorbellMode takes auto, trap, shadow or mmap.
func ParseDoorbellMode(s string) (DoorbellMode, error) {
	for m, name := range doorbellModes {
		if s == name {
			return DoorbellMode(m), nil
		}
	}
	return 0, fmt.Errorf("nvme: unknown doorbell mode %q; known are auto, trap, shadow and mmap", s)
}

// Limits of a Config.
const (
	MaxQueues  = 128
	maxEntries = 4096 // of any queue
)

// Config describes a controller. The zero value has no namespace and the defaults
// named below.
type Config struct {
	// Subsystem is what the controller belongs to. nil gives it one of its own, with
	// Namespaces, Serial, Model and Firmware, which are empty otherwise.
	Subsystem *Subsystem
	// Namespaces are the namespaces 1 to N.
	Namespaces []Namespace
	// Queues is the number of I/O queue pairs, 1 to 128. 0 means 63: with the admin
	// queue's that makes 64 interrupt vectors, and Windows takes no more.
	Queues int
	// QueueEntries is the largest size of an I/O queue, a power of two from 2 to
	// 4,096, which is what 0 means.
	QueueEntries int
	// Doorbells is how queues are noticed.
	Doorbells DoorbellMode
	// IdlePoll is the longest pause between two looks at the doorbells of an idle
	// controller in mode Mmap. 0 means engine.DefaultMaxSleep.
	IdlePoll time.Duration
	// Serial, Model and Firmware are those of SubsystemConfig.
	Serial, Model, Firmware string
	// MaxTransfer is the largest transfer of one command in bytes, a power of two
	// from 4,096 to 2 MiB. 0 means 1 MiB.
	MaxTransfer int
	// VendorID and DeviceID are those of the PCI function. 0 means an unassigned
	// vendor, for which no driver has quirks.
	VendorID, DeviceID uint16
}

// Namespace is one namespace of a controller.
type Namespace struct {
	// Backend is its storage. The controller owns it: Controller.Close closes it.
	Backend block.Backend
	// BlockSize is the logical block size: 512, which is what 0 means, or 4096.
	BlockSize int
	// Metadata is the size of each block's metadata in bytes: 0, 8, 16 or 64. It is
	// stored behind the blocks, so the backend holds fewer of them, and begins as an
	// image without it does. A block and its metadata are two writes: a power cut
	// between them, before a flush, leaves one of them old, which protection tells.
	Metadata int
	// Extended: metadata is transferred at the end of each block, else in a buffer of
	// its own.
	Extended bool
	// Protection is the type of the protection information, 1 to 3, in the last bytes of
	// the metadata; 0: there is none.
	Protection int
	// Guard is the size of its guard in bits: 16, which is what 0 means, or 64, which
	// takes blocks of 4096 bytes and metadata of at least 16.
	Guard int
	// StorageTag is the size of its storage tag in bits: 0, or 16 where the metadata is
	// nothing else.
	StorageTag int
}

// ErrConfig is found by errors.Is in every error of New.
var ErrConfig = errors.New("nvme: invalid configuration")

func configError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
}

const (
	defaultVendor  = 0x7666 // not assigned by the PCI-SIG
	defaultDevice  = 0x0001
	defaultQueues  = 63
	defaultEntries = maxEntries
	defaultModel   = "vfiouser NVMe controller"
	defaultFW      = "1.0"
	defaultMDTS    = 1 << 20
	maxMDTS        = 2 << 20
)

// complete checks c and fills in what is left out.
func (c *Config) complete() error {
	orDefault(&c.Queues, defaultQueues)
	orDefault(&c.QueueEntries, defaultEntries)
	orDefault(&c.MaxTransfer, defaultMDTS)
	orDefault(&c.VendorID, defaultVendor)
	orDefault(&c.DeviceID, defaultDevice)
	if c.Doorbells == Auto {
		c.Doorbells = Shadow
	}
	switch {
	case c.Queues < 1 || c.Queues > MaxQueues:
		return configError("%d I/O queues is not from 1 to %d", c.Queues, MaxQueues)
	case c.QueueEntries < 2 || c.QueueEntries > maxEntries || bits.OnesCount(uint(c.QueueEntries)) != 1:
		return configError("queues of %d entries: not a power of two from 2 to 4096", c.QueueEntries)
	case c.MaxTransfer < pageSize || c.MaxTransfer > maxMDTS || bits.OnesCount(uint(c.MaxTransfer)) != 1:
		return configError("largest transfer of %d bytes: not a power of two from %d to %d", c.MaxTransfer, pageSize, maxMDTS)
	case c.IdlePoll < 0:
		return configError("a pause of %v between two looks at the doorbells", c.IdlePoll)
	case c.Doorbells > Mmap:
		return configError("doorbell mode %v", c.Doorbells)
	case c.Subsystem != nil && (c.Namespaces != nil || c.Serial != "" || c.Model != "" || c.Firmware != ""):
		return configError("namespaces and names are the subsystem's")
	}
	return nil
}

func randomSerial() string {
	var id [10]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func checkText(name, s string, limit int) error {
	if len(s) > limit {
		return configError("%s %q has more than %d characters", name, s, limit)
	}
	for _, r := range s {
		if r < ' ' || r > '~' {
			return configError("%s %q is not printable ASCII", name, s)
		}
	}
	return nil
}
