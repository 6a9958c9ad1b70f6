package hostile

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// ram is memory that an attacker shares with the victim. It is accessed by read and
// write and never mapped here, so that it can be truncated at any time.
type ram struct {
	a    *attack
	fd   int
	size uint64
	used uint64
}

// newRAM makes an unsealed memfd, which is closed when the attack is over.
func (a *attack) newRAM(size uint64) *ram {
	a.Helper()
	fd, err := unix.MemfdCreate("attacker", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		a.Fatal(err)
	}
	a.atEnd(func() { _ = unix.Close(fd) })
	m := &ram{a: a, fd: fd, size: size}
	m.truncate(size)
	return m
}

func (m *ram) truncate(size uint64) {
	m.a.Helper()
	if err := unix.Ftruncate(m.fd, int64(size)); err != nil {
		m.a.Fatal(err)
	}
}

// alloc hands out pages; the result is an offset.
func (m *ram) alloc(bytes uint64) uint64 {
	m.a.Helper()
	at := m.used
	m.used += (bytes + pageSize - 1) &^ (pageSize - 1)
	if m.used > m.size {
		m.a.Fatal("the attacker has no memory left")
	}
	return at
}

func (m *ram) write(off uint64, b []byte) {
	m.a.Helper()
	if _, err := unix.Pwrite(m.fd, b, int64(off)); err != nil {
		m.a.Fatal(err)
	}
}

// read reads; what was truncated reads as zeroes.
func (m *ram) read(off uint64, b []byte) {
	m.a.Helper()
	n, err := unix.Pread(m.fd, b, int64(off))
	if err != nil {
		m.a.Fatal(err)
	}
	clear(b[n:])
}

func (m *ram) write16(off uint64, v uint16) {
	m.write(off, binary.LittleEndian.AppendUint16(nil, v))
}

func (m *ram) write32(off uint64, v uint32) {
	m.write(off, binary.LittleEndian.AppendUint32(nil, v))
}

func (m *ram) write64(off uint64, v ...uint64) {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	m.write(off, b)
}

const readWrite = codec.DMAFlagRead | codec.DMAFlagWrite

// mapping is a DMA_MAP.
func mapping(iova, size, offset uint64, flags codec.DMAFlags) []byte {
	return (&codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: flags, Offset: offset, Addr: iova, Size: size}).Append(nil)
}

// unmapping is a DMA_UNMAP.
func unmapping(iova, size uint64) []byte {
	return (&codec.DMAUnmap{ArgSz: codec.DMAUnmapSize, Addr: iova, Size: size}).Append(nil)
}

// path is a name to open the file by.
func (m *ram) path() string { return fmt.Sprintf("/proc/self/fd/%d", m.fd) }
