//go:build arm64

package dma

import (
	"sync/atomic"
	"unsafe"
)

// Go's atomic stores are STLR here: release for what came before, and no later
// LDAR, which is what Load* are, passes them. See access_unsafe.go for the invariant
// of the pointers.

// StoreRelease16 writes 2 bytes after all that was written before.
func StoreRelease16(b []byte, off int, v uint16) {
	p := unsafe.Pointer((*[2]byte)(b[off:]))
	if uintptr(p)&1 != 0 {
		storeBytes(b, off, uint64(v), 2)
		return
	}
	storeRelease16((*uint16)(p), v)
}

// storeRelease16 is STLRH, for which Go has no name. p is aligned.
//
//go:noescape
func storeRelease16(p *uint16, v uint16)

// StoreRelease32 writes 4 bytes after all that was written before.
func StoreRelease32(b []byte, off int, v uint32) {
	p := unsafe.Pointer((*[4]byte)(b[off:]))
	if uintptr(p)&3 != 0 {
		store32Bytes(b, off, v)
	} else {
		atomic.StoreUint32((*uint32)(p), v)
	}
}

// StoreRelease64 writes 8 bytes after all that was written before.
func StoreRelease64(b []byte, off int, v uint64) {
	p := unsafe.Pointer((*[8]byte)(b[off:]))
	if uintptr(p)&7 != 0 {
		store64Bytes(b, off, v)
	} else {
		atomic.StoreUint64((*uint64)(p), v)
	}
}

// Store16 writes 2 bytes; a full fence.
func Store16(b []byte, off int, v uint16) { StoreRelease16(b, off, v) }

// Publish16 writes a 16-byte queue entry, the upper half last: a consumer that sees
// the upper half, phase tag included, sees all of it.
func Publish16(b []byte, lo, hi uint64) {
	p := unsafe.Pointer((*[16]byte)(b))
	if uintptr(p)&7 != 0 {
		storeBytes(b, 0, lo, 8)
		storeBytes(b, 8, hi, 8)
		return
	}
	q := (*[2]uint64)(p)
	q[0] = lo
	atomic.StoreUint64(&q[1], hi)
}
