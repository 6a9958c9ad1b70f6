package spec

import "encoding/binary"

// Sizes of queue entries in bytes and as the exponents that CC and Identify
// Controller hold.
const (
	SubmissionEntrySize     = 64
	CompletionEntrySize     = 16
	SubmissionEntryExponent = 6
	CompletionEntryExponent = 4
)

// Admin opcodes (Base 2.0, figure 138).
const (
	AdminDeleteSQ            = 0x00
	AdminCreateSQ            = 0x01
	AdminGetLogPage          = 0x02
	AdminDeleteCQ            = 0x04
	AdminCreateCQ            = 0x05
	AdminIdentify            = 0x06
	AdminAbort               = 0x08
	AdminSetFeatures         = 0x09
	AdminGetFeatures         = 0x0a
	AdminAsyncEvent          = 0x0c
	AdminNamespaceManagement = 0x0d
	AdminFirmwareCommit      = 0x10
	AdminFirmwareDownload    = 0x11
	AdminNamespaceAttachment = 0x15
	AdminFormatNVM           = 0x80
	AdminSelfTest            = 0x14
	AdminKeepAlive           = 0x18
	AdminDirectiveSend       = 0x19
	AdminDirectiveReceive    = 0x1a
	AdminDoorbellBuffer      = 0x7c
	AdminSecuritySend        = 0x81
	AdminSecurityReceive     = 0x82
	AdminSanitize            = 0x84
)

// Opcodes of the NVM command set.
const (
	NVMFlush              = 0x00
	NVMWrite              = 0x01
	NVMRead               = 0x02
	NVMWriteUncorrectable = 0x04
	NVMCompare            = 0x05
	NVMWriteZeroes        = 0x08
	NVMDatasetManagement  = 0x09
	NVMVerify             = 0x0c
	NVMCopy               = 0x19
)

// Commit actions of Firmware Commit (Base 2.0, 5.12).
const (
	CommitReplace         = 0
	CommitReplaceActivate = 1 // at the next reset
	CommitActivate        = 2 // likewise
	CommitActivateNow     = 3 // after replacing, if an image has come
)

// BroadcastNSID names all namespaces.
const BroadcastNSID = 0xffffffff

// Bits of CDW12 of Read, Write and Write Zeroes.
const (
	RWDeallocate = 1 << 25 // DEAC, Write Zeroes only
	RWForceUnit  = 1 << 30 // FUA
	RWLimitRetry = 1 << 31
	RWPRInfo     = 0xf << 26
)

// Bits of an opcode that say where the data of the command goes (Base 2.0, figure 87).
const (
	OpcodeToController = 1 << 0
	OpcodeToHost       = 1 << 1
)

// DSMDeallocate is the AD bit of CDW11 of Dataset Management.
const DSMDeallocate = 1 << 2

// SubmissionEntry is one entry of a submission queue (Base 2.0, 3.3.3.1).
type SubmissionEntry struct {
	Opcode uint8
	Flags  uint8 // FUSE in bits 1:0, PSDT in bits 7:6
	CID    uint16
	NSID   uint32
	CDW2   uint32
	CDW3   uint32
	MPTR   uint64
	PRP1   uint64
	PRP2   uint64
	CDW10  uint32
	CDW11  uint32
	CDW12  uint32
	CDW13  uint32
	CDW14  uint32
	CDW15  uint32
}

// Fuse is the fused operation field: 0 is a command on its own.
func (e *SubmissionEntry) Fuse() uint8 { return e.Flags & 3 }

// Values of the fused operation field.
const (
	FuseFirst  = 1
	FuseSecond = 2
)

// PSDT says how data is described: 0 is PRP.
func (e *SubmissionEntry) PSDT() uint8 { return e.Flags >> 6 }

// LBA is the starting LBA of an NVM command.
func (e *SubmissionEntry) LBA() uint64 { return uint64(e.CDW11)<<32 | uint64(e.CDW10) }

// SetLBA sets the starting LBA of an NVM command.
func (e *SubmissionEntry) SetLBA(lba uint64) {
	e.CDW10, e.CDW11 = uint32(lba), uint32(lba>>32)
}

// Blocks is the number of logical blocks of an NVM command, 1 to 65,536.
func (e *SubmissionEntry) Blocks() uint32 { return e.CDW12&0xffff + 1 }

// CopyRanges is the number of source ranges of Copy, 1 to 256.
func (e *SubmissionEntry) CopyRanges() int { return int(e.CDW12&0xff) + 1 }

// CopyFormat is the format of the source ranges of Copy.
func (e *SubmissionEntry) CopyFormat() uint8 { return uint8(e.CDW12 >> 8 & 0xf) }

// Put writes the 64 bytes of the entry.
func (e *SubmissionEntry) Put(b []byte) {
	_ = b[SubmissionEntrySize-1]
	binary.LittleEndian.PutUint64(b[0:], uint64(e.Opcode)|uint64(e.Flags)<<8|uint64(e.CID)<<16|uint64(e.NSID)<<32)
	binary.LittleEndian.PutUint64(b[8:], uint64(e.CDW2)|uint64(e.CDW3)<<32)
	binary.LittleEndian.PutUint64(b[16:], e.MPTR)
	binary.LittleEndian.PutUint64(b[24:], e.PRP1)
	binary.LittleEndian.PutUint64(b[32:], e.PRP2)
	binary.LittleEndian.PutUint64(b[40:], uint64(e.CDW10)|uint64(e.CDW11)<<32)
	binary.LittleEndian.PutUint64(b[48:], uint64(e.CDW12)|uint64(e.CDW13)<<32)
	binary.LittleEndian.PutUint64(b[56:], uint64(e.CDW14)|uint64(e.CDW15)<<32)
}

// Get reads the 64 bytes of the entry, each once.
func (e *SubmissionEntry) Get(b []byte) {
	_ = b[SubmissionEntrySize-1]
	w := binary.LittleEndian.Uint64(b[0:])
	e.Opcode, e.Flags, e.CID, e.NSID = uint8(w), uint8(w>>8), uint16(w>>16), uint32(w>>32)
	w = binary.LittleEndian.Uint64(b[8:])
	e.CDW2, e.CDW3 = uint32(w), uint32(w>>32)
	e.MPTR = binary.LittleEndian.Uint64(b[16:])
	e.PRP1 = binary.LittleEndian.Uint64(b[24:])
	e.PRP2 = binary.LittleEndian.Uint64(b[32:])
	w = binary.LittleEndian.Uint64(b[40:])
	e.CDW10, e.CDW11 = uint32(w), uint32(w>>32)
	w = binary.LittleEndian.Uint64(b[48:])
	e.CDW12, e.CDW13 = uint32(w), uint32(w>>32)
	w = binary.LittleEndian.Uint64(b[56:])
	e.CDW14, e.CDW15 = uint32(w), uint32(w>>32)
}

// CompletionEntry is one entry of a completion queue (Base 2.0, 3.3.3.2).
type CompletionEntry struct {
	DW0    uint32
	DW1    uint32
	SQHead uint16
	SQID   uint16
	CID    uint16
	Phase  bool
	Status Status
}

// Put writes the 16 bytes of the entry. The word that holds the phase tag is
// written last, but with plain stores: see Words for shared memory.
func (e *CompletionEntry) Put(b []byte) {
	_ = b[CompletionEntrySize-1]
	lo, hi := e.Words()
	binary.LittleEndian.PutUint64(b[0:], lo)
	binary.LittleEndian.PutUint64(b[8:], hi)
}

// Words is the entry as two 64-bit values in host order. The second one holds
// the phase tag: whoever publishes the entry stores it last, and atomically.
func (e *CompletionEntry) Words() (lo, hi uint64) {
	lo = uint64(e.DW0) | uint64(e.DW1)<<32
	hi = uint64(e.SQHead) | uint64(e.SQID)<<16 | uint64(e.CID)<<32 | uint64(e.Status)<<49
	if e.Phase {
		hi |= 1 << 48
	}
	return lo, hi
}

// Get reads the 16 bytes of the entry.
func (e *CompletionEntry) Get(b []byte) {
	_ = b[CompletionEntrySize-1]
	e.SetWords(binary.LittleEndian.Uint64(b[0:]), binary.LittleEndian.Uint64(b[8:]))
}

// SetWords is the inverse of Words.
func (e *CompletionEntry) SetWords(lo, hi uint64) {
	e.DW0, e.DW1 = uint32(lo), uint32(lo>>32)
	e.SQHead, e.SQID, e.CID = uint16(hi), uint16(hi>>16), uint16(hi>>32)
	e.Phase = hi>>48&1 != 0
	e.Status = Status(hi >> 49)
}

// DSMRangeSize is the size of one range of Dataset Management, of which a
// command carries at most DSMMaxRanges.
const (
	DSMRangeSize = 16
	DSMMaxRanges = 256
)

// DSMRange is one range of Dataset Management.
type DSMRange struct {
	Attributes uint32
	Blocks     uint32 // not zero based
	LBA        uint64
}

// Put writes the 16 bytes of the range.
func (r *DSMRange) Put(b []byte) {
	_ = b[DSMRangeSize-1]
	binary.LittleEndian.PutUint32(b[0:], r.Attributes)
	binary.LittleEndian.PutUint32(b[4:], r.Blocks)
	binary.LittleEndian.PutUint64(b[8:], r.LBA)
}

// Get reads the 16 bytes of the range.
func (r *DSMRange) Get(b []byte) {
	_ = b[DSMRangeSize-1]
	r.Attributes = binary.LittleEndian.Uint32(b[0:])
	r.Blocks = binary.LittleEndian.Uint32(b[4:])
	r.LBA = binary.LittleEndian.Uint64(b[8:])
}
