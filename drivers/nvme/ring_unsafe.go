package nvme

import (
	"sync/atomic"
	"unsafe"

	"vfiouser/devices/nvme/spec"
)

// sqEntry is a submission queue entry as eight little-endian words, in the host's order: amd64 and arm64 are
// little-endian.
type sqEntry [spec.SubmissionEntrySize / 8]uint64

// cqEntry is a completion queue entry. hi holds the phase tag: it is loaded first, and lo only if the phase is right.
type cqEntry struct {
	lo uint64
	hi atomic.Uint64
}

// sqEntries sees memory as a submission queue.
func sqEntries(b []byte) []sqEntry {
	// Sound: b is page-aligned memory of a client.Memory, which stays mapped while the queue exists; the
	// length is what b has room for. The device only reads it, after a doorbell, which is an atomic store or
	// a system call.
	return unsafe.Slice((*sqEntry)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/spec.SubmissionEntrySize)
}

// cqEntries sees memory as a completion queue.
func cqEntries(b []byte) []cqEntry {
	// Sound: as in sqEntries. The device writes it at any time: hi is accessed atomically, lo is read only between
	// the device's publication of hi and the doorbell that gives the entry back.
	return unsafe.Slice((*cqEntry)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/spec.CompletionEntrySize)
}

// word32 is the 32-bit word at off of shared memory.
func word32(b []byte, off uint64) *atomic.Uint32 {
	_ = b[off+3]
	// Sound: the bounds were checked, b is page-aligned and off a multiple of 4.
	return (*atomic.Uint32)(unsafe.Pointer(&b[off]))
}
