package spec

import "encoding/binary"

// Bits of CDW12 that say what happens to protection information (NVM command set 1.0,
// figures 9 and 10), for Copy those of its write portion.
const (
	RWStorageTagCheck = 1 << 24 // STC
	RWCheckRefTag     = 1 << 26 // PRCHK bit 0
	RWCheckAppTag     = 1 << 27
	RWCheckGuard      = 1 << 28
	RWCheckAll        = RWCheckGuard | RWCheckAppTag | RWCheckRefTag
	RWAction          = 1 << 29 // PRACT
)

// Bits of CDW12 of Copy for its read portion.
const (
	CopyStorageTagCheckRead = 1 << 25 // STCR
	CopyReadInfoShift       = 12      // PRINFOR, in the order of PRINFO
	RWInfoShift             = 26      // where PRINFO is
	CopyFormat1             = 1 << 8  // source ranges are of format 1
)

// Guard is the format of protection information (PIF), named for the size of its guard.
type Guard uint8

// Formats of protection information.
const (
	Guard16 Guard = 0
	Guard32 Guard = 1
	Guard64 Guard = 2
)

// Size is the size of the protection information of a block in bytes, 0 for a format that
// is not supported here.
func (g Guard) Size() int {
	switch g {
	case Guard16:
		return 8
	case Guard64:
		return 16
	}
	return 0
}

// Bits is the size of the guard.
func (g Guard) Bits() int { return 16 << g }

// SpaceBits is the size of the storage and reference space.
func (g Guard) SpaceBits() int {
	if g == Guard64 {
		return 48
	}
	return 32
}

// Compute is the guard of a block: of its data, and of the metadata before its protection
// information.
func (g Guard) Compute(data, metadata []byte) uint64 {
	if g == Guard64 {
		return ^crc64(crc64(^uint64(0), data), metadata)
	}
	return uint64(crc16(crc16(0, data), metadata))
}

// AppTagEscape is the application tag of blocks that are not checked; for Type 3 the
// reference tag must have all bits set too.
const AppTagEscape = 0xffff

// Protection is the protection information of a block (5.2.1). All of it is big-endian.
type Protection struct {
	Guard  uint64
	AppTag uint16
	Space  uint64 // storage and reference space: storage tag, then reference tag
}

// Put writes g.Size() bytes.
func (p *Protection) Put(b []byte, g Guard) {
	be := binary.BigEndian
	if g == Guard64 {
		_ = b[15]
		be.PutUint64(b, p.Guard)
		be.PutUint64(b[8:], uint64(p.AppTag)<<48|p.Space&(1<<48-1))
		return
	}
	be.PutUint64(b, p.Guard<<48|uint64(p.AppTag)<<32|p.Space&(1<<32-1))
}

// Get reads g.Size() bytes.
func (p *Protection) Get(b []byte, g Guard) {
	be := binary.BigEndian
	if g == Guard64 {
		w := be.Uint64(b[8:])
		*p = Protection{be.Uint64(b), uint16(w >> 48), w & (1<<48 - 1)}
		return
	}
	w := be.Uint64(b)
	*p = Protection{w >> 48, uint16(w >> 32), w & (1<<32 - 1)}
}

// ReferenceSpace is the storage tag and the initial reference tag of a command, for a
// guard of 16 or 64 bits (figure 125).
func (e *SubmissionEntry) ReferenceSpace(g Guard) uint64 {
	if g == Guard64 {
		return uint64(e.CDW3&0xffff)<<32 | uint64(e.CDW14)
	}
	return uint64(e.CDW14)
}

// SetReferenceSpace sets what ReferenceSpace returns.
func (e *SubmissionEntry) SetReferenceSpace(v uint64) { e.CDW3, e.CDW14 = uint32(v>>32), uint32(v) }

// AppTag is the application tag of a command, of which the bits in mask are compared.
func (e *SubmissionEntry) AppTag() (tag, mask uint16) { return uint16(e.CDW15), uint16(e.CDW15 >> 16) }

// SetAppTag sets what AppTag returns.
func (e *SubmissionEntry) SetAppTag(tag, mask uint16) { e.CDW15 = uint32(mask)<<16 | uint32(tag) }

// StorageTagMask is LBSTM in the data structure of Namespace Management (figure 105).
func StorageTagMask(b []byte) uint64 { return binary.LittleEndian.Uint64(b[384:]) }

// Bits of MC, DPC, DPS and FLBAS of Identify Namespace.
const (
	MCExtended       = 1 << 0 // metadata at the end of each block
	MCSeparate       = 1 << 1 // metadata in a buffer of its own
	DPCType1         = 1 << 0
	DPCType2         = 1 << 1
	DPCType3         = 1 << 2
	DPCLastBytes     = 1 << 4
	DPSTypeMask      = 7
	DPSFirstBytes    = 1 << 3 // not since version 1.4
	FLBASExtended    = 1 << 4
	PICStorageTag16  = 1 << 0 // 16-bit guards with a storage tag
	PICNoMask16      = 1 << 1 // whose mask has all bits set
	PICCopyTagCheck  = 1 << 2 // STCR of Copy
	maxFormats       = 64
	extendedFormatAt = 12
)

// ExtendedFormat is what CNS 05h adds to an LBA format.
type ExtendedFormat struct {
	Guard      Guard
	StorageTag uint8 // bits
}

// IdentifyNamespaceNVM is what Identify with CNS 05h and CSI 0 returns (figure 100).
type IdentifyNamespaceNVM struct {
	StorageTagMask uint64 // LBSTM
	PIC            uint8
	PIFA           uint8
	Formats        [maxFormats]ExtendedFormat
}

// Put writes all 4,096 bytes.
func (n *IdentifyNamespaceNVM) Put(b []byte) {
	b = b[:IdentifySize]
	clear(b)
	binary.LittleEndian.PutUint64(b, n.StorageTagMask)
	b[8], b[9] = n.PIC, n.PIFA
	for i, f := range n.Formats {
		binary.LittleEndian.PutUint32(b[extendedFormatAt+4*i:], uint32(f.StorageTag&0x7f)|uint32(f.Guard&3)<<7)
	}
}

// Get reads all 4,096 bytes.
func (n *IdentifyNamespaceNVM) Get(b []byte) {
	b = b[:IdentifySize]
	*n = IdentifyNamespaceNVM{StorageTagMask: binary.LittleEndian.Uint64(b), PIC: b[8], PIFA: b[9]}
	for i := range n.Formats {
		w := binary.LittleEndian.Uint32(b[extendedFormatAt+4*i:])
		n.Formats[i] = ExtendedFormat{Guard(w >> 7 & 3), uint8(w & 0x7f)}
	}
}
