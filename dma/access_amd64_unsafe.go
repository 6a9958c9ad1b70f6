//go:build amd64

package dma

import "unsafe"

// On amd64 every store is a release store for the processor, so a plain one is
// enough where an atomic one (XCHG) would stall until the cache line, which the
// other side is polling, has come over. The compiler keeps the order of stores:
// each depends on the memory state that the one before it left. See
// access_unsafe.go for the invariant of the pointers.

// StoreRelease16 writes 2 bytes after all that was written before.
func StoreRelease16(b []byte, off int, v uint16) {
	p := unsafe.Pointer((*[2]byte)(b[off:]))
	*(*uint16)(p) = v
}

// StoreRelease32 writes 4 bytes after all that was written before.
func StoreRelease32(b []byte, off int, v uint32) {
	p := unsafe.Pointer((*[4]byte)(b[off:]))
	*(*uint32)(p) = v
}

// StoreRelease64 writes 8 bytes after all that was written before.
func StoreRelease64(b []byte, off int, v uint64) {
	p := unsafe.Pointer((*[8]byte)(b[off:]))
	*(*uint64)(p) = v
}

// Store16 writes 2 bytes; a full fence.
func Store16(b []byte, off int, v uint16) {
	StoreRelease16(b, off, v)
	var f fenceWord
	f.v.Swap(1)
}

// Publish16 writes a 16-byte queue entry, the upper half last: a consumer that sees
// the upper half, phase tag included, sees all of it.
func Publish16(b []byte, lo, hi uint64) {
	p := (*[2]uint64)(unsafe.Pointer((*[16]byte)(b)))
	p[0] = lo
	p[1] = hi
}
