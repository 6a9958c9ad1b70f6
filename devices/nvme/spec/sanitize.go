package spec

import "encoding/binary"

// Actions of Sanitize, in bits 2:0 of CDW10.
const (
	SanitizeActionExitFailure = 1
	SanitizeActionBlockErase  = 2
	SanitizeActionOverwrite   = 3
	SanitizeActionCryptoErase = 4
)

// Bits of CDW10 of Sanitize. The number of passes of an overwrite, 0 being 16, is in bits 7:4.
const (
	SanitizeUnrestricted = 1 << 3 // AUSE
	SanitizePassesShift  = 4
	SanitizeInvert       = 1 << 8 // OIPBP: the pattern is inverted from pass to pass
	SanitizeNoDeallocate = 1 << 9 // NDAS
)

// States of the sanitize operation, bits 2:0 of its status.
const (
	SanitizeNever          = 0
	SanitizeSucceeded      = 1
	SanitizeRuns           = 2
	SanitizeHasFailed      = 3
	SanitizeNotDeallocated = 4 // it has succeeded, but blocks were deallocated that were not to be
)

// SanitizeGlobalErased is the bit of the status that nothing was written since.
const SanitizeGlobalErased = 1 << 8

// SanitizeNoEstimate is a time that is not known.
const SanitizeNoEstimate = 0xffffffff

// SanitizeSize is the size of the sanitize status log in bytes.
const SanitizeSize = 512

// SanitizeLog is the sanitize status log (Base 2.0, 5.16.1.25). Times are in seconds.
type SanitizeLog struct {
	Progress uint16 // of 65,536; ffffh when none is in progress
	Status   uint16 // complete passes of an overwrite in bits 7:3
	CDW10    uint32 // of the last command

	Overwrite, BlockErase, CryptoErase             uint32
	OverwriteKept, BlockEraseKept, CryptoEraseKept uint32 // with SanitizeNoDeallocate
}

func (l *SanitizeLog) words() [7]*uint32 {
	return [7]*uint32{&l.CDW10, &l.Overwrite, &l.BlockErase, &l.CryptoErase, &l.OverwriteKept, &l.BlockEraseKept, &l.CryptoEraseKept}
}

// State is what the status says of the operation.
func (l *SanitizeLog) State() uint8 { return uint8(l.Status & 7) }

// Put writes the 512 bytes of the log.
func (l *SanitizeLog) Put(b []byte) {
	b = b[:SanitizeSize]
	clear(b)
	binary.LittleEndian.PutUint16(b[0:], l.Progress)
	binary.LittleEndian.PutUint16(b[2:], l.Status)
	for i, w := range l.words() {
		binary.LittleEndian.PutUint32(b[4+4*i:], *w)
	}
}

// Get reads the 512 bytes of the log.
func (l *SanitizeLog) Get(b []byte) {
	b = b[:SanitizeSize]
	*l = SanitizeLog{Progress: binary.LittleEndian.Uint16(b[0:]), Status: binary.LittleEndian.Uint16(b[2:])}
	for i, w := range l.words() {
		*w = binary.LittleEndian.Uint32(b[4+4*i:])
	}
}
