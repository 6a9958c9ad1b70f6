package engine

import (
	"vfiouser/codec"
	"vfiouser/irq"
	"vfiouser/pci"
)

// Device is what a device author implements. Embed BaseDevice to get a default for
// everything but Describe.
//
// Except for Describe, the engine calls these methods on the reactor goroutine, which
// drives every device of the process: they must not block. Calls for one device
// never overlap, and come in this order for each client:
//
//	NewDevice, { UpdateStatus | LockDataPath … ResetDevice … LockDataPath }*,
//	LockDataPath(hold), DestroyDevice
type Device interface {
	// Describe says what the device is. It is called once, by Engine.Register.
	Describe() (Description, error)
	// NewDevice tells that a client has attached and negotiated; its memory and
	// interrupts follow. An error refuses the client.
	NewDevice(s *Session) error
	// DestroyDevice tells that the client is gone. The data path has been held
	// before; the client's memory and eventfds are released when it returns. The
	// device's own state stays for the next client.
	DestroyDevice(s *Session)
	// UpdateStatus tells that the memory table or the interrupts have changed.
	UpdateStatus(s *Session, what Update)
	// LockDataPath asks the data path to hold still, or tells that it may go on.
	// The device calls done once, from any goroutine, when nothing of its data path
	// runs or is in flight (hold), or right away (go on). The engine stalls the
	// session, not the reactor, until then.
	LockDataPath(s *Session, hold bool, done func())
	// ResetDevice returns the device to its power-on state, VFIO_USER_DEVICE_RESET.
	// The data path is held meanwhile, and the configuration space is reset already.
	ResetDevice(s *Session)
}

// Update says what changed; it is a set of bits.
type Update uint8

const (
	// UpdateMemory: a DMA region was mapped or unmapped.
	UpdateMemory Update = 1 << iota
	// UpdateInterrupts: an eventfd was assigned or removed, or a mask was changed.
	UpdateInterrupts
)

// BaseDevice has the default for every optional method of Device.
type BaseDevice struct{}

// NewDevice accepts the client.
func (BaseDevice) NewDevice(*Session) error { return nil }

// DestroyDevice does nothing.
func (BaseDevice) DestroyDevice(*Session) {}

// UpdateStatus does nothing.
func (BaseDevice) UpdateStatus(*Session, Update) {}

// LockDataPath is done at once: the device has no data path of its own.
func (BaseDevice) LockDataPath(_ *Session, _ bool, done func()) { done() }

// ResetDevice does nothing.
func (BaseDevice) ResetDevice(*Session) {}

// The indexes of a PCI device's regions (VFIO_PCI_*_REGION_INDEX).
const (
	RegionBAR0   = codec.RegionBAR0
	RegionBAR1   = codec.RegionBAR1
	RegionBAR2   = codec.RegionBAR2
	RegionBAR3   = codec.RegionBAR3
	RegionBAR4   = codec.RegionBAR4
	RegionBAR5   = codec.RegionBAR5
	RegionROM    = codec.RegionROM
	RegionConfig = codec.RegionConfig
	RegionVGA    = codec.RegionVGA
	NumRegions   = codec.NumRegions
)

// Description is the shape of a device. It does not change while it is registered.
type Description struct {
	// Config is the device's configuration space. The engine serves the region
	// RegionConfig from it, on the reactor, and owns it from Register on.
	Config *pci.Space
	// NoReset says that the device does not take VFIO_USER_DEVICE_RESET: GET_INFO has no
	// VFIO_DEVICE_FLAGS_RESET, and the command is refused with ENOTSUP. (A function level
	// reset is a matter of the configuration space.)
	NoReset bool
	// ConfigWritten, if set, is called on the reactor after a client's write to the
	// configuration space changed what the bits say.
	ConfigWritten func(what pci.Changed)
	// Regions are the device's regions by index; a Size of 0 means that there is
	// none. RegionConfig is filled in by the engine.
	Regions [NumRegions]Region
	// Extra are regions of the device's own. They follow the others, from index NumRegions
	// on, and each has a Type, by which a driver finds it. QEMU refuses a device of more
	// than 100 regions in all, SPDK one of more than 10.
	Extra []Region
	// IRQs is the number of interrupts of each type.
	IRQs [irq.NumIndexes]int
	// MSIX, if set, is the MSI-X table. The engine serves it and its pending bits where
	// Config says that they lie, in the device's own regions or, where those have no
	// Size, in regions that it makes; the table's masks hold for the vectors, and the
	// pending bits are theirs. It is the engine's from Register on, and is reset for
	// each client. IRQs[irq.MSIX] may be left 0.
	MSIX *pci.MSIXTable
	// ROM, if set, is what the expansion ROM reads, up to the size that Config gives it;
	// the rest reads ones. The engine serves the region RegionROM from it: read-only, and
	// only while the guest has enabled it.
	ROM []byte
	// StateVersion is how a Migrator lays out its state. It takes that of earlier
	// versions too; later ones are refused.
	StateVersion uint32
}

// Area is a part of a region: an offset from its start and a size, both in bytes.
type Area = codec.Area

// RegionType says what a region of the device's own is.
type RegionType = codec.RegionType

// Region describes one region of a device.
type Region struct {
	// Type goes with a region of the device's own (Description.Extra), and only with such.
	Type RegionType
	// Size in bytes. For a BAR a power of two; the engine compares it with the BAR
	// in the configuration space.
	Size uint64
	// Read fills p with what is at off, and Write takes p to off; both are called on
	// the reactor and must not block, and p is theirs only during the call. The range
	// was checked to lie inside the region, and has at least one byte. A returned errno (syscall.Errno, also
	// wrapped) goes to the client, any other error as EIO. A region without Read or
	// Write refuses such accesses with EINVAL.
	Read  func(off uint64, p []byte) error
	Write func(off uint64, p []byte) error
	// FD backs the mappable part of the region, Offset bytes into the file. It is
	// used if Areas is not empty, and stays the device's; it must be valid as long as
	// the device is registered.
	FD     int
	Offset uint64
	// Areas are the parts that a client may map instead of sending messages, in
	// ascending order, in units of pages. The whole region as one area is offered
	// without a sparse capability.
	Areas []Area
	// IOEventfds are the parts that a client may have signalled instead of sending writes.
	IOEventfds []IOEventfd
}
