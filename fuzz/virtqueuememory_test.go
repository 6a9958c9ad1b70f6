package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/dma"
)

// Guest memory of FuzzVirtqueue: regions that touch, that allow little, that are reached by
// message only, and holes. Places are pages from vqBase on.
const (
	vqPage  = 4096
	vqBase  = 0x10000
	vqPages = 26

	vqTables  = 4 * vqPage // where indirect tables mostly are
	vqBuffers = 8 * vqPage // where buffers mostly are
)

// vqRegion is a region as the model sees it.
type vqRegion struct {
	from, to uint64 // guest addresses, to excluded
	prot     dma.Prot
	message  bool
}

var vqRegions = []vqRegion{
	{0, 8, dma.ProtRead | dma.ProtWrite, false},
	{8, 12, dma.ProtRead | dma.ProtWrite, false}, // comes and goes
	{12, 14, dma.ProtRead, false},
	{14, 16, dma.ProtWrite, false},
	{18, 22, dma.ProtRead | dma.ProtWrite, true},
	{22, 24, dma.ProtRead | dma.ProtWrite, false},
}

const vqGoing = 1 // the region that comes and goes

// vqMemory is the guest's memory, the table that the device has of it, and a copy that says
// what it is to be. It serves one program after the other.
type vqMemory struct {
	fd      int
	table   *dma.Table
	r       *dma.Reader
	mem     []byte // from vqBase on
	want    []byte // likewise
	regions []vqRegion
	start   []byte
	written uint64 // pages that the device has written since settle, one bit each
}

func newVQMemory(f *testing.F) *vqMemory {
	fd, err := unix.MemfdCreate("fuzz-virtqueue", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	const size = vqPages * vqPage
	if err := unix.Ftruncate(fd, size); err != nil {
		f.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Fatal(err)
	}
	m := &vqMemory{fd: fd, table: dma.NewTable(dma.Config{}), mem: mem, want: make([]byte, size), start: make([]byte, size)}
	m.r = m.table.NewReader()
	for i := range m.start {
		m.start[i] = byte(i*7 + i>>8*13) // tells where it is
	}
	clear(m.start[:vqTables]) // but rings begin empty
	for _, r := range vqRegions {
		r.from, r.to = vqBase+r.from*vqPage, vqBase+r.to*vqPage
		m.regions = append(m.regions, r)
		m.share(f, r)
	}
	if _, err := m.table.StartLogging(vqPage, nil, nil); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		m.r.Close()
		closed := make(chan struct{})
		m.table.Close(func() { close(closed) })
		<-closed
		_ = unix.Munmap(mem)
		_ = unix.Close(fd)
	})
	return m
}

// share has the device know a region.
func (m *vqMemory) share(t testing.TB, r vqRegion) {
	t.Helper()
	d := dma.Mapping{IOVA: r.from, Size: r.to - r.from, Prot: r.prot, FD: -1}
	if !r.message {
		fd, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		d.FD, d.Offset = fd, r.from-vqBase
	}
	if err := m.table.Map(d); err != nil {
		t.Fatal(err)
	}
}

// reset brings memory to where each program begins, in a section.
func (m *vqMemory) reset(t *testing.T) {
	m.r.Exit()
	if !m.whole() {
		m.toggle(t)
	}
	copy(m.mem, m.start)
	copy(m.want, m.start)
	m.r.Enter()
	m.settle(t)
}

// settle begins another section, and says which pages the device has written since the last
// time, and which of them are in the log of writes.
func (m *vqMemory) settle(t *testing.T) (written, logged uint64) {
	t.Helper()
	m.r.Exit()
	m.r.Enter()
	var pages [1]uint64
	if err := m.table.ReportDirty(dma.Range{IOVA: vqBase, Size: vqPages * vqPage}, vqPage, pages[:]); err != nil {
		t.Fatal(err)
	}
	written, m.written = m.written, 0
	return written, pages[0]
}

func (m *vqMemory) whole() bool { return len(m.regions) == len(vqRegions) }

// toggle takes a region away, or gives it back. Call it outside of a section.
func (m *vqMemory) toggle(t *testing.T) {
	if m.whole() {
		r := m.regions[vqGoing]
		if err := m.table.Unmap(r.from, r.to-r.from, nil); err != nil {
			t.Fatal(err)
		}
		m.regions = append(m.regions[:vqGoing:vqGoing], m.regions[vqGoing+1:]...)
		return
	}
	r := vqRegions[vqGoing]
	r.from, r.to = vqBase+r.from*vqPage, vqBase+r.to*vqPage
	m.regions = append(m.regions[:vqGoing:vqGoing], append([]vqRegion{r}, m.regions[vqGoing:]...)...)
	m.share(t, r)
}

// poke is a write of the driver. What is outside of memory is not there.
func (m *vqMemory) poke(addr uint64, b []byte) {
	if off := addr - vqBase; off < uint64(len(m.mem)) {
		copy(m.mem[off:], b)
		copy(m.want[off:], b)
	}
}

// expect is a write of the device, in the model only.
func (m *vqMemory) expect(addr uint64, b []byte) {
	copy(m.want[addr-vqBase:], b)
	for i := range b {
		m.written |= 1 << ((addr - vqBase + uint64(i)) / vqPage)
	}
}

func (m *vqMemory) poke16(addr uint64, v uint16) {
	m.poke(addr, binary.LittleEndian.AppendUint16(nil, v))
}
func (m *vqMemory) poke32(addr uint64, v uint32) {
	m.poke(addr, binary.LittleEndian.AppendUint32(nil, v))
}

func (m *vqMemory) get16(addr uint64) uint16 { return binary.LittleEndian.Uint16(m.want[addr-vqBase:]) }
func (m *vqMemory) get32(addr uint64) uint32 { return binary.LittleEndian.Uint32(m.want[addr-vqBase:]) }
func (m *vqMemory) get64(addr uint64) uint64 { return binary.LittleEndian.Uint64(m.want[addr-vqBase:]) }

// same says whether memory is what the model has.
func (m *vqMemory) same() bool { return bytes.Equal(m.mem, m.want) }

// difference is the first place where it is not.
func (m *vqMemory) difference() uint64 {
	for i := range m.mem {
		if m.mem[i] != m.want[i] {
			return vqBase + uint64(i)
		}
	}
	return 0
}

// vqPiece is a range in one region.
type vqPiece struct{ addr, n uint64 }

// pieces cuts a range at the regions' borders. What is wrong with the rest is ErrAddress, or
// ErrRemote where that can be reached by message.
func (m *vqMemory) pieces(addr, n uint64, prot dma.Prot) (list []vqPiece, wrong error) {
	if n > 0 && n-1 > math.MaxUint64-addr {
		return nil, virtqueue.ErrAddress
	}
	for n > 0 {
		r := m.region(addr)
		switch {
		case r == nil, r.prot&prot != prot:
			return list, virtqueue.ErrAddress
		case r.message:
			return list, virtqueue.ErrRemote
		}
		p := vqPiece{addr, min(n, r.to-addr)}
		list = append(list, p)
		addr, n = addr+p.n, n-p.n
	}
	return list, nil
}

func (m *vqMemory) region(addr uint64) *vqRegion {
	for i := range m.regions {
		if r := &m.regions[i]; r.from <= addr && addr < r.to {
			return r
		}
	}
	return nil
}

// reachable says whether the client answers a message about a range.
func (m *vqMemory) reachable(addr, n uint64, prot dma.Prot) bool {
	if n > 0 && n-1 > math.MaxUint64-addr {
		return false
	}
	for n > 0 {
		r := m.region(addr)
		if r == nil || r.prot&prot != prot {
			return false
		}
		k := min(n, r.to-addr)
		addr, n = addr+k, n-k
	}
	return true
}

var errVQUnreachable = errors.New("no such memory")

// ReadDMA and WriteDMA are the client's side of access by message.
func (m *vqMemory) ReadDMA(iova uint64, p []byte) error {
	if !m.reachable(iova, uint64(len(p)), codec.DMAFlagRead) {
		return errVQUnreachable
	}
	copy(p, m.mem[iova-vqBase:])
	return nil
}

func (m *vqMemory) WriteDMA(iova uint64, p []byte) error {
	if !m.reachable(iova, uint64(len(p)), codec.DMAFlagWrite) {
		return errVQUnreachable
	}
	copy(m.mem[iova-vqBase:], p)
	return nil
}
