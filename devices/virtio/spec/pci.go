package spec

import "encoding/binary"

// Identity of a virtio function on PCI (4.1.2).
const (
	PCIVendor     = 0x1af4
	PCIDeviceBase = 0x1040 // plus the type of the device
	PCIRevision   = 1      // or more: not a transitional device
)

// CapType says which structure a capability points at (4.1.4).
type CapType uint8

// Types of capabilities.
const (
	CapCommon       CapType = 1 // common configuration
	CapNotify       CapType = 2 // notifications
	CapISR          CapType = 3 // ISR status
	CapDevice       CapType = 4 // device-specific configuration
	CapPCI          CapType = 5 // access through the configuration space
	CapSharedMemory CapType = 8
	CapVendor       CapType = 9
)

// Sizes of capabilities in bytes, with id, link and length.
const (
	CapSize       = 16
	CapNotifySize = 20 // the multiplier follows
	CapPCISize    = 20 // the window follows
)

// Offsets in a capability in bytes.
const (
	CapOffsetLength     = 2  // of the capability
	CapOffsetType       = 3  // CapType
	CapOffsetBAR        = 4  // 0 to 5
	CapOffsetID         = 5  // tells capabilities of one type apart
	CapOffsetOffset     = 8  // 4 bytes: where the structure begins in the BAR
	CapOffsetSize       = 12 // 4 bytes: of the structure
	CapOffsetMultiplier = 16 // CapNotify: 4 bytes, for QueueNotifyOff
	CapOffsetWindow     = 16 // CapPCI: 4 bytes
)

// Capability is a vendor-specific capability of virtio (4.1.4).
type Capability struct {
	Type       CapType
	BAR        uint8
	ID         uint8
	Offset     uint32 // of the structure in the BAR, bytes
	Size       uint32 // of the structure, bytes
	Multiplier uint32 // of CapNotify: bytes from one queue's address to the next one's
}

// size is that of the capability in the configuration space, in bytes.
func (c *Capability) size() int {
	switch c.Type {
	case CapNotify:
		return CapNotifySize
	case CapPCI:
		return CapPCISize
	default:
		return CapSize
	}
}

// Data is what follows id and link in the configuration space.
func (c *Capability) Data() []byte {
	b := make([]byte, c.size())
	b[CapOffsetLength], b[CapOffsetType] = uint8(len(b)), uint8(c.Type)
	b[CapOffsetBAR], b[CapOffsetID] = c.BAR, c.ID
	binary.LittleEndian.PutUint32(b[CapOffsetOffset:], c.Offset)
	binary.LittleEndian.PutUint32(b[CapOffsetSize:], c.Size)
	if c.Type == CapNotify {
		binary.LittleEndian.PutUint32(b[CapOffsetMultiplier:], c.Multiplier)
	}
	return b[2:]
}

// Get reads the capability that begins at b[0], with its id; false if it has fewer bytes
// than its type needs. The bytes need not be trusted; BAR may be any number.
func (c *Capability) Get(b []byte) bool {
	if len(b) < CapSize {
		return false
	}
	*c = Capability{
		Type: CapType(b[CapOffsetType]), BAR: b[CapOffsetBAR], ID: b[CapOffsetID],
		Offset: binary.LittleEndian.Uint32(b[CapOffsetOffset:]),
		Size:   binary.LittleEndian.Uint32(b[CapOffsetSize:]),
	}
	if n := c.size(); int(b[CapOffsetLength]) < n || len(b) < n {
		return false
	}
	if c.Type == CapNotify {
		c.Multiplier = binary.LittleEndian.Uint32(b[CapOffsetMultiplier:])
	}
	return true
}

// Offsets of the fields of the common configuration in bytes (4.1.4.3). Accesses have the
// width of the field; those of 8 bytes are made as two of 4.
const (
	DeviceFeatureSelect  = 0x00 // 4 bytes: which 32 feature bits DeviceFeature shows
	DeviceFeature        = 0x04 // 4 bytes, read-only
	DriverFeatureSelect  = 0x08 // 4 bytes: likewise for DriverFeature
	DriverFeature        = 0x0c // 4 bytes
	ConfigMSIXVector     = 0x10 // 2 bytes
	NumQueues            = 0x12 // 2 bytes, read-only
	DeviceStatus         = 0x14 // 1 byte: Status
	ConfigGeneration     = 0x15 // 1 byte, read-only
	QueueSelect          = 0x16 // 2 bytes: which queue the rest is about
	QueueSize            = 0x18 // 2 bytes, entries: largest possible on reset; 0: no such queue
	QueueMSIXVector      = 0x1a // 2 bytes
	QueueEnable          = 0x1c // 2 bytes
	QueueNotifyOff       = 0x1e // 2 bytes, read-only, in units of the multiplier
	QueueDesc            = 0x20 // 8 bytes: address of the descriptor area
	QueueDriver          = 0x28 // 8 bytes: of the driver area
	QueueDevice          = 0x30 // 8 bytes: of the device area
	QueueNotifConfigData = 0x38 // 2 bytes, read-only, with FeatureNotifConfigData
	QueueReset           = 0x3a // 2 bytes, with FeatureRingReset
	AdminQueueIndex      = 0x3c // 2 bytes, read-only, with FeatureAdminVQ
	AdminQueueNum        = 0x3e // 2 bytes, read-only, with FeatureAdminVQ

	CommonSize = 0x40 // bytes
)

// NoVector in ConfigMSIXVector or QueueMSIXVector: no interrupt; the device answers with
// it to a vector that it cannot use (4.1.5.1.2).
const NoVector = 0xffff

// Notification composes what a driver writes to a queue's notification address (4.1.5.2):
// data is the queue's index, or its QueueNotifConfigData; next is, with
// FeatureNotificationData only, where it will make the next descriptor available.
func Notification(data, next uint16) uint32 { return uint32(data) | uint32(next)<<16 }
