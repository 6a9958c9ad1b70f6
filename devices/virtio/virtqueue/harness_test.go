package virtqueue

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

const (
	page = 4096
	base = 0x10000 // guest address of the memory of a test
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// guest is a guest's memory: the table that the device has of it, and a mapping of its own.
type guest struct {
	t     testing.TB
	fd    int
	table *dma.Table
	r     *dma.Reader
	mem   []byte // from base on
}

func newGuest(t testing.TB, size int) *guest {
	t.Helper()
	fd, err := unix.MemfdCreate("virtqueue-test", unix.MFD_CLOEXEC)
	must(t, err)
	must(t, unix.Ftruncate(fd, int64(size)))
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	g := &guest{t: t, fd: fd, table: dma.NewTable(dma.Config{}), mem: mem}
	g.r = g.table.NewReader()
	t.Cleanup(func() {
		g.r.Close()
		closed := make(chan struct{})
		g.table.Close(func() { close(closed) })
		<-closed
		must(t, unix.Munmap(mem))
		must(t, unix.Close(fd))
	})
	return g
}

// share maps a part of the guest's memory for the device.
func (g *guest) share(off, size int, prot dma.Prot) {
	g.t.Helper()
	fd, err := unix.FcntlInt(uintptr(g.fd), unix.F_DUPFD_CLOEXEC, 0)
	must(g.t, err)
	must(g.t, g.table.Map(dma.Mapping{IOVA: base + uint64(off), Size: uint64(size), Prot: prot, FD: fd, Offset: uint64(off)}))
}

// at is n bytes at a guest address.
func (g *guest) at(addr uint64, n int) []byte { return g.mem[addr-base:][:n:n] }

// errOutside is what a client answers to a message about memory that it does not have.
var errOutside = errors.New("no such memory")

func (g *guest) has(iova uint64, n int) bool {
	return iova >= base && iova-base <= uint64(len(g.mem)) && uint64(n) <= uint64(len(g.mem))-(iova-base)
}

// ReadDMA and WriteDMA are the messages of a client that reaches all of its memory.
func (g *guest) ReadDMA(iova uint64, p []byte) error {
	if !g.has(iova, len(p)) {
		return errOutside
	}
	dma.Copy(p, g.at(iova, len(p)))
	return nil
}

func (g *guest) WriteDMA(iova uint64, p []byte) error {
	if !g.has(iova, len(p)) {
		return errOutside
	}
	dma.Copy(g.at(iova, len(p)), p)
	return nil
}

// rawSplit writes a split queue's areas as a test wants them.
type rawSplit struct {
	g   *guest
	cfg Config
	idx uint16 // available index
}

// desc writes descriptor i of a table at addr.
func (g *guest) desc(addr uint64, i int, d spec.Desc) {
	d.Put(g.at(addr+uint64(i)*spec.DescSize, spec.DescSize))
}

func (s *rawSplit) desc(i int, d spec.Desc) { s.g.desc(s.cfg.Desc, i, d) }

// offer makes the chain from head on available.
func (s *rawSplit) offer(heads ...uint16) {
	ring := s.g.at(s.cfg.Driver, int(spec.AvailBytes(s.cfg.Size)))
	for _, h := range heads {
		dma.StoreRelease16(ring, spec.AvailRing+2*int(s.idx%s.cfg.Size), h)
		s.idx++
	}
	dma.StoreRelease16(ring, spec.AvailIndex, s.idx)
}

func (s *rawSplit) used16(off int) uint16 {
	return dma.Load16(s.g.at(s.cfg.Device, int(spec.UsedBytes(s.cfg.Size))), off)
}

func (s *rawSplit) used(i int) (id, written uint32) {
	ring := s.g.at(s.cfg.Device, int(spec.UsedBytes(s.cfg.Size)))
	at := spec.UsedRing + 8*(i%int(s.cfg.Size))
	return dma.Load32(ring, at), dma.Load32(ring, at+4)
}

// areas lays out a queue in the first 64 KiB of a guest's memory.
func areas(cfg Config) Config {
	cfg.Desc, cfg.Driver, cfg.Device = base, base+0x4000, base+0x6000
	return cfg
}

const (
	dataAt   = base + 0x10000 // where tests put buffers
	tablesAt = base + 0x8000  // and indirect tables
	memSize  = 0x20000
)

// newSplit gives a queue of size entries on memory that is all shared, translated, inside a
// section.
func newSplit(t testing.TB, cfg Config) (*rawSplit, *Queue) {
	t.Helper()
	g := newGuest(t, memSize)
	g.share(0, memSize, dma.ProtRead|dma.ProtWrite)
	s := &rawSplit{g: g, cfg: areas(cfg)}
	q, err := New(s.cfg)
	must(t, err)
	g.r.Enter()
	must(t, q.Translate(g.r))
	return s, q
}

// modes runs a test on mapped memory and by message.
func modes(t *testing.T, cfg Config, f func(t *testing.T, s *rawSplit, q *Queue)) {
	for _, mode := range []access{mapped, message} {
		t.Run(mode.String(), func(t *testing.T) {
			s, q := newSplit(t, cfg)
			if mode == message {
				s.g.r.Exit()
				q.SetRemote(s.g)
			}
			f(t, s, q)
		})
	}
}

// rawPacked writes a packed queue's areas as a test wants them.
type rawPacked struct {
	g   *guest
	cfg Config
}

// put writes a descriptor and makes it available in the round with this wrap counter.
func (s *rawPacked) put(i int, d spec.PackedDesc, wrap bool) {
	d.Flags |= spec.PackedAvail(wrap)
	b := s.g.at(s.cfg.Desc+16*uint64(i), 16)
	dma.Store64(b, 0, d.Addr)
	dma.Store64(b, 8, d.Word())
}

func packedModes(t *testing.T, cfg Config, f func(t *testing.T, s *rawPacked, q *Queue)) {
	cfg.Packed = true
	modes(t, cfg, func(t *testing.T, s *rawSplit, q *Queue) { f(t, &rawPacked{s.g, s.cfg}, q) })
}
