package dma

import "unsafe"

// Holds tells whether a local address, one that IsFault gave, is in guest memory that this
// section could reach: a goroutine that touches the memory of two guests so learns which of
// them has truncated it. It may be called until the next Enter.
//
// The invariant: addresses are only compared, and nothing is accessed.
func (r *Reader) Holds(addr uintptr) bool {
	if r.snap == nil {
		return false
	}
	for _, c := range r.snap.chunks {
		for _, g := range c.regions {
			if at := addr - uintptr(unsafe.Pointer(unsafe.SliceData(g.mem))); at < uintptr(len(g.mem)) {
				return true
			}
		}
	}
	return false
}
