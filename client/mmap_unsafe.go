package client

import (
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapShared maps size bytes of a file, which must have them. unix.MmapPtr and not unix.Mmap, which keeps a global map
// under a lock.
func mapShared(fd int, off, size uint64, prot int) ([]byte, error) {
	const maxInt = int64(^uint64(0) >> 1)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && (off > uint64(st.Size) || size > uint64(st.Size)-off) {
		return nil, fmt.Errorf("%w: bytes %#x to %#x of a file that has %#x", ErrNotMappable, off, off+size, st.Size)
	}
	if size == 0 || size > uint64(maxInt) || off > uint64(maxInt) {
		return nil, fmt.Errorf("%w: %d bytes at %d", ErrNotMappable, size, off)
	}
	p, err := unix.MmapPtr(fd, int64(off), nil, uintptr(size), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	// Sound: the kernel has just mapped size bytes at p, outside of Go's heap; unmap ends it.
	return unsafe.Slice((*byte)(p), int(size)), nil
}

// unmap ends a mapping made by mapShared: b is exactly what that returned.
func unmap(b []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)))
}

// MappedRegion is a mapped part of a region: accesses to it are loads and stores that the server sees at once, but is
// not told of. Offsets count from the start of the region. An offset that is out of bounds or not
// aligned to the access panics, as an index does, and so does a store to a region that may only be read. No method may be
// used after Close.
//
// Each access of 8 to 64 bits is one access to the memory. Those of 32 and 64 bits are atomic and sequentially consistent;
// those of 8 and 16 bits are in no order with others. ReadAt and WriteAt copy in no order at all.
type MappedRegion struct {
	Offset   uint64 // of the mapping in the region, bytes
	bytes    []byte
	writable bool
}

// Size is the size of the mapping in bytes.
func (m *MappedRegion) Size() uint64 { return uint64(len(m.bytes)) }

// Close unmaps. Closing again does nothing.
func (m *MappedRegion) Close() error {
	b := m.bytes
	m.bytes = nil
	if b == nil {
		return nil
	}
	return unmap(b)
}

// Uint32 is the register at off, for repeated access: it is checked here and nowhere else, and must not be used
// after Close.
func (m *MappedRegion) Uint32(off uint64) *atomic.Uint32 {
	// Sound: index has checked that 4 aligned bytes of the mapping are there; atomic.Uint32 is one
	// 32-bit word. Registers are little-endian, and so are amd64 and arm64.
	return (*atomic.Uint32)(unsafe.Pointer(&m.bytes[m.index(off, 4)]))
}

// Uint64 is Uint32 for a 64-bit register.
func (m *MappedRegion) Uint64(off uint64) *atomic.Uint64 {
	// Sound: as in Uint32, with 8 bytes.
	return (*atomic.Uint64)(unsafe.Pointer(&m.bytes[m.index(off, 8)]))
}

// Load8 loads the byte at off.
//
//go:noinline
func (m *MappedRegion) Load8(off uint64) uint8 { return m.bytes[m.index(off, 1)] }

// Store8 stores the byte at off.
//
//go:noinline
func (m *MappedRegion) Store8(off uint64, v uint8) { m.bytes[m.storeIndex(off, 1)] = v }

// Load16 loads the 16-bit register at off.
//
//go:noinline
func (m *MappedRegion) Load16(off uint64) uint16 {
	// Sound: as in Uint32, with 2 bytes. Not inlined, so that it is one load.
	return *(*uint16)(unsafe.Pointer(&m.bytes[m.index(off, 2)]))
}

// Store16 stores the 16-bit register at off.
//
//go:noinline
func (m *MappedRegion) Store16(off uint64, v uint16) {
	// Sound: as in Load16.
	*(*uint16)(unsafe.Pointer(&m.bytes[m.storeIndex(off, 2)])) = v
}

// Load32 loads the 32-bit register at off.
func (m *MappedRegion) Load32(off uint64) uint32 { return m.Uint32(off).Load() }

// Store32 stores the 32-bit register at off.
func (m *MappedRegion) Store32(off uint64, v uint32) {
	m.storeIndex(off, 4)
	m.Uint32(off).Store(v)
}

// Load64 loads the 64-bit register at off.
func (m *MappedRegion) Load64(off uint64) uint64 { return m.Uint64(off).Load() }

// Store64 stores the 64-bit register at off.
func (m *MappedRegion) Store64(off uint64, v uint64) {
	m.storeIndex(off, 8)
	m.Uint64(off).Store(v)
}

// ReadAt copies memory from off on into p: an io.ReaderAt. io.EOF if the mapping has less, ErrInvalid for an offset outside.
func (m *MappedRegion) ReadAt(p []byte, off int64) (int, error) {
	b, err := m.tail(off)
	n := copy(p, b)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt copies p to memory from off on: an io.WriterAt. io.ErrShortWrite if the mapping has less, ErrInvalid for an offset
// outside or a region that may only be read.
func (m *MappedRegion) WriteAt(p []byte, off int64) (int, error) {
	b, err := m.tail(off)
	if err == nil && !m.writable {
		return 0, invalid("store to a region that may only be read")
	}
	n := copy(b, p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// tail is the mapping from an offset in the region on.
func (m *MappedRegion) tail(off int64) ([]byte, error) {
	i := uint64(off) - m.Offset
	if off < 0 || uint64(off) < m.Offset || i > uint64(len(m.bytes)) {
		return nil, invalid("offset %#x of a mapping of %#x bytes at %#x", off, len(m.bytes), m.Offset)
	}
	return m.bytes[i:], nil
}

// storeIndex is index for a store.
func (m *MappedRegion) storeIndex(off, size uint64) uint64 {
	if !m.writable {
		panic("client: store to a region that may only be read")
	}
	return m.index(off, size)
}

// index turns an offset in the region into an index of bytes.
func (m *MappedRegion) index(off, size uint64) uint64 {
	i := off - m.Offset
	if off < m.Offset || i > uint64(len(m.bytes)) || size > uint64(len(m.bytes))-i || i%size != 0 {
		panic(fmt.Sprintf("client: access of %d bytes at %#x of a mapping of %#x bytes at %#x", size, off, len(m.bytes), m.Offset))
	}
	return i
}
