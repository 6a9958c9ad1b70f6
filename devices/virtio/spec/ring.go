package spec

import "encoding/binary"

// MaxQueueSize is the largest number of entries of a virtqueue (2.7, 2.8).
const MaxQueueSize = 1 << 15

// DescSize is the size of a descriptor of either layout in bytes.
const DescSize = 16

// Flags of a descriptor (2.7.5, 2.8.3, 2.8.6, 2.8.7, 2.8.1).
const (
	DescNext     = 1 << 0  // the chain goes on
	DescWrite    = 1 << 1  // written by the device, else read
	DescIndirect = 1 << 2  // refers to a table of descriptors
	DescAvail    = 1 << 7  // packed: the driver's wrap counter
	DescUsed     = 1 << 15 // packed: the device's wrap counter
)

// Alignments of the parts of a split virtqueue in bytes (2.7).
const (
	DescAlign  = 16 // also of the descriptor ring of a packed one (2.8.10.1)
	AvailAlign = 2
	UsedAlign  = 4
)

// The available ring (2.7.6): flags, index and entries of 2 bytes each, at these offsets
// in bytes, then the used event (UsedEventOffset).
const (
	AvailFlags     = 0
	AvailIndex     = 2
	AvailRing      = 4
	AvailEntrySize = 2
)

// AvailNoInterrupt in the flags of the available ring: no interrupts, please. It means
// nothing with EVENT_IDX (2.7.7).
const AvailNoInterrupt = 1

// The used ring (2.7.8): flags and index of 2 bytes, entries of 8 bytes (the head of the
// chain in 4, the bytes written in 4), at these offsets in bytes, then the available event
// (AvailEventOffset).
const (
	UsedFlags     = 0
	UsedIndex     = 2
	UsedRing      = 4
	UsedEntrySize = 8
)

// UsedNoNotify in the flags of the used ring: no notifications, please. It means nothing
// with EVENT_IDX (2.7.10).
const UsedNoNotify = 1

// DescBytes is the size in bytes of a descriptor table, or packed ring, of n entries.
func DescBytes(n uint16) uint64 { return DescSize * uint64(n) }

// AvailBytes is the size in bytes of an available ring of n entries.
func AvailBytes(n uint16) uint64 { return 6 + AvailEntrySize*uint64(n) }

// UsedBytes is the size in bytes of a used ring of n entries.
func UsedBytes(n uint16) uint64 { return 6 + UsedEntrySize*uint64(n) }

// UsedEventOffset is where the driver's event index lies in an available ring of n
// entries, in bytes.
func UsedEventOffset(n uint16) int { return AvailRing + AvailEntrySize*int(n) }

// AvailEventOffset is where the device's event index lies in a used ring of n entries,
// in bytes.
func AvailEventOffset(n uint16) int { return UsedRing + UsedEntrySize*int(n) }

// NeedEvent says whether an index that moves from old to now passes event, so that the
// other side wants to hear of it (2.7.7.2, 2.7.10). Packed rings use it with positions
// that are brought into one round.
func NeedEvent(event, now, old uint16) bool { return now-event-1 < now-old }

// The event suppression structures of a packed virtqueue (2.8.10, 2.8.14): a 32-bit word
// with the position of a descriptor in bits 14:0, the wrap counter of its round in bit
// 15 and one of these in bits 17:16.
const (
	EventEnable  = 0
	EventDisable = 1
	EventDesc    = 2 // for the descriptor named, with EVENT_IDX only

	EventSize  = 4 // bytes
	EventAlign = 4
)

// EventWord composes an event suppression structure. at is a Position.
func EventWord(at uint16, flags uint32) uint32 { return uint32(at) | flags<<16 }

// EventParts takes an event suppression structure apart. What is reserved is ignored.
func EventParts(word uint32) (at uint16, flags uint32) { return uint16(word), word >> 16 & 3 }

// Position composes a place in a packed ring, bits 14:0, with the wrap counter there, bit
// 15: the form of event suppression structures and of notification data (2.9).
func Position(index uint16, wrap bool) uint16 {
	if wrap {
		return index | 1<<15
	}
	return index
}

// PositionParts takes a Position apart.
func PositionParts(at uint16) (index uint16, wrap bool) { return at &^ (1 << 15), at>>15 != 0 }

// Desc is a descriptor of a split virtqueue (2.7.5).
type Desc struct {
	Addr  uint64 // guest address
	Len   uint32 // bytes
	Flags uint16
	Next  uint16 // index of the next descriptor, with DescNext
}

// Put writes d into b.
func (d *Desc) Put(b []byte) {
	_ = b[DescSize-1]
	binary.LittleEndian.PutUint64(b, d.Addr)
	binary.LittleEndian.PutUint32(b[8:], d.Len)
	binary.LittleEndian.PutUint16(b[12:], d.Flags)
	binary.LittleEndian.PutUint16(b[14:], d.Next)
}

// Get reads d from b.
func (d *Desc) Get(b []byte) {
	_ = b[DescSize-1]
	*d = DescOf(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]))
}

// DescOf takes apart a descriptor that was loaded in two words.
func DescOf(lo, hi uint64) Desc {
	return Desc{Addr: lo, Len: uint32(hi), Flags: uint16(hi >> 32), Next: uint16(hi >> 48)}
}

// PackedDesc is a descriptor of a packed virtqueue (2.8.13).
type PackedDesc struct {
	Addr  uint64 // guest address; unused in a used descriptor
	Len   uint32 // bytes; written by the device in a used one
	ID    uint16 // of the buffer; in the last descriptor of a chain
	Flags uint16
}

// Put writes d into b, in no particular order.
func (d *PackedDesc) Put(b []byte) {
	_ = b[DescSize-1]
	binary.LittleEndian.PutUint64(b, d.Addr)
	binary.LittleEndian.PutUint64(b[8:], d.Word())
}

// Get reads d from b.
func (d *PackedDesc) Get(b []byte) {
	_ = b[DescSize-1]
	*d = PackedDescOf(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]))
}

// Word is the upper half of the descriptor, which says all but the address. Writing it
// at once, with release semantics, is what makes a descriptor available or used.
func (d *PackedDesc) Word() uint64 {
	return uint64(d.Len) | uint64(d.ID)<<32 | uint64(d.Flags)<<48
}

// PackedDescOf takes apart a descriptor that was loaded in two words.
func PackedDescOf(lo, hi uint64) PackedDesc {
	return PackedDesc{Addr: lo, Len: uint32(hi), ID: uint16(hi >> 32), Flags: uint16(hi >> 48)}
}

// PackedAvail is what the flags DescAvail and DescUsed of an available descriptor are in
// the round with this wrap counter (2.8.1).
func PackedAvail(wrap bool) uint16 {
	if wrap {
		return DescAvail
	}
	return DescUsed
}

// PackedUsed is what the flags DescAvail and DescUsed of a used descriptor are in the
// round with this wrap counter (2.8.1).
func PackedUsed(wrap bool) uint16 {
	if wrap {
		return DescAvail | DescUsed
	}
	return 0
}
