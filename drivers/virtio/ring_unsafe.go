package virtio

import (
	"sync/atomic"
	"unsafe"

	"vfiouser/devices/virtio/spec"
)

// The views of this file are sound for the same reason: b is memory of a Ring, aligned to 64 bytes at its start and at least to
// the type where the view begins, it stays mapped while the ring exists, the length of the view is what b has room for, and the types
// hold no pointers. The device changes the memory at any time: what it writes is loaded once, atomically.

// descriptors sees memory as descriptors, which only the driver writes (split), or which are its own between Reap and
// Publish (packed).
func descriptors(b []byte) []descriptor {
	return unsafe.Slice((*descriptor)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/spec.DescSize)
}

// words16 sees memory as entries of an available ring.
func words16(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/spec.AvailEntrySize)
}

// usedElements sees memory as elements of a used ring.
func usedElements(b []byte) []usedElement {
	return unsafe.Slice((*usedElement)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/spec.UsedEntrySize)
}

// usedElement is an element of the used ring, little-endian.
type usedElement struct{ id, length uint32 }

func (e *usedElement) load() (id, length uint32) {
	return atomic.LoadUint32(&e.id), atomic.LoadUint32(&e.length)
}

// aligned says whether memory is aligned to a line.
func aligned(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%line == 0 }
