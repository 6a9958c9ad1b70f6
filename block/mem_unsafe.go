package block

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserveMemory reserves addresses for size bytes of private anonymous memory that begin on a
// huge page, and returns what releases them again. None of it can be touched yet.
func reserveMemory(size uint64) (data []byte, unmap func(), err error) {
	whole := uintptr(size) + hugePage
	base, err := unix.MmapPtr(-1, 0, nil, whole, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	// The slice lies inside [base, base+whole): the start is moved by less
	// than hugePage. The memory is not Go's, so the collector ignores it; it
	// is unmapped only once nothing that holds the slice can be reached.
	skip := -uintptr(base) & (hugePage - 1)
	data = unsafe.Slice((*byte)(unsafe.Add(base, skip)), size)
	return data, func() { _ = unix.MunmapPtr(base, whole) }, nil
}
