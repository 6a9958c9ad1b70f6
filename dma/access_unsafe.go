//go:build amd64 || arm64

package dma

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Access to memory that somebody else changes at the same time. Each function
// reads or writes the bytes that it names exactly once and, if they are aligned,
// all at one time. Values are little-endian, as both supported architectures are.
// A range outside b panics as any index does. What is not aligned is accessed byte
// by byte: no structure of NVMe or virtio is, but a hostile guest may try.
//
// Load* have acquire and StoreRelease* release semantics. Store* are sequentially
// consistent: no later Load* comes before them. The event index of a queue needs
// that: store the index, then look at the queue once more. They are swaps because
// under the race detector atomic stores outside the Go heap are plain ones; in other
// builds on amd64 both are the same instruction.
//
// The invariant of each unsafe use here: the conversion to an array pointer has
// checked that b holds the bytes, the check of alignment allows the wider type, and
// the pointer does not outlive the call. Plain types have no pointers inside, so the
// garbage collector does not care where the memory is.

// Load16 reads 2 bytes.
func Load16(b []byte, off int) uint16 {
	p := unsafe.Pointer((*[2]byte)(b[off:]))
	if uintptr(p)&1 != 0 {
		return uint16(loadBytes(b, off, 2))
	}
	// There is no 16-bit atomic load: take the aligned word around it, which is in the
	// same page and so in the same mapping.
	w := atomic.LoadUint32((*uint32)(unsafe.Pointer(uintptr(p) &^ 3)))
	return uint16(w >> (uintptr(p) & 2 * 8))
}

// Load32 reads 4 bytes.
func Load32(b []byte, off int) uint32 {
	p := unsafe.Pointer((*[4]byte)(b[off:]))
	if uintptr(p)&3 != 0 {
		return load32Bytes(b, off)
	}
	return atomic.LoadUint32((*uint32)(p))
}

// Load64 reads 8 bytes.
func Load64(b []byte, off int) uint64 {
	p := unsafe.Pointer((*[8]byte)(b[off:]))
	if uintptr(p)&7 != 0 {
		return load64Bytes(b, off)
	}
	return atomic.LoadUint64((*uint64)(p))
}

// Store32 writes 4 bytes; a full fence.
func Store32(b []byte, off int, v uint32) {
	p := unsafe.Pointer((*[4]byte)(b[off:]))
	if uintptr(p)&3 != 0 {
		store32Bytes(b, off, v)
	} else {
		atomic.SwapUint32((*uint32)(p), v)
	}
}

// Store64 writes 8 bytes; a full fence.
func Store64(b []byte, off int, v uint64) {
	p := unsafe.Pointer((*[8]byte)(b[off:]))
	if uintptr(p)&7 != 0 {
		store64Bytes(b, off, v)
	} else {
		atomic.SwapUint64((*uint64)(p), v)
	}
}

// fenceWord takes the swap that makes a fence; nobody reads it.
type fenceWord struct{ v atomic.Uint32 }

// The paths for what is not aligned, one function a width so that the callers above
// stay small enough to be inlined.

//go:noinline
func load32Bytes(b []byte, off int) uint32 { return uint32(loadBytes(b, off, 4)) }

//go:noinline
func load64Bytes(b []byte, off int) uint64 { return loadBytes(b, off, 8) }

//go:noinline
func store32Bytes(b []byte, off int, v uint32) { storeBytes(b, off, uint64(v), 4) }

//go:noinline
func store64Bytes(b []byte, off int, v uint64) { storeBytes(b, off, v, 8) }

//go:noinline
func loadBytes(b []byte, off, n int) uint64 {
	var tmp [8]byte
	copy(tmp[:], b[off:off+n])
	return binary.LittleEndian.Uint64(tmp[:])
}

//go:noinline
func storeBytes(b []byte, off int, v uint64, n int) {
	var tmp [8]byte
	binary.LittleEndian.PutUint64(tmp[:], v)
	var f fenceWord
	f.v.Swap(1)
	copy(b[off:off+n], tmp[:])
	f.v.Swap(1)
}
