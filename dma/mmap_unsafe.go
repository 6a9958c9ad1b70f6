package dma

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapFile maps a range of fd shared. unix.MmapPtr is used because unix.Mmap keeps
// every mapping in a locked map of the whole process.
//
// The slice is sound because its memory is outside the Go heap, exactly as long as
// the mapping, and lives until unmapFile; the table's grace periods see to it that
// no slice of it is in use then.
func mapFile(fd int, s span, prot Prot) ([]byte, error) {
	p := unix.PROT_READ
	if prot&ProtWrite != 0 {
		p |= unix.PROT_WRITE
	}
	// MAP_NORESERVE: on hugetlbfs the client's reservation is used and no page is
	// set aside for the parts of the file that nobody asked for.
	ptr, err := unix.MmapPtr(fd, int64(s.start), nil, uintptr(s.len()), p, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	mem := unsafe.Slice((*byte)(ptr), s.len())
	// A core dump of this process must not hold the guest's memory. Best effort.
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
	return mem, nil
}

// unmapFile undoes mapFile; mem is what mapFile returned, all of it.
func unmapFile(mem []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem)))
}
