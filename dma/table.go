package dma

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Config bounds a Table. The zero value gives the defaults.
type Config struct {
	MaxMaps  int    // regions; 0: 65,535, the protocol's default for max_dma_maps
	PageSize uint64 // bytes, a power of two: regions are multiples of it; 0: 4,096
	MaxMmaps int    // mmaps behind the regions, which share them file by file; 0: 1,024
	MaxBytes uint64 // address space behind the regions, bytes; 0: 8 TiB
	// CloseFD closes a descriptor that is refused. It may be of any kind, and closing it
	// may take as long as the client wants. nil: close(2).
	CloseFD func(fd int)
}

// Table is the guest memory of one session.
type Table struct {
	cfg  Config
	snap atomic.Pointer[snapshot]
	log  atomic.Pointer[dirtyLog] // that of snap, for those who need nothing else of it
	// waiters is set while a retirement waits for readers; Reader.Exit looks at it.
	waiters atomic.Bool

	change sync.Mutex // serialises changes of snap; taken before mu
	closed bool       // under change

	mu         sync.Mutex
	readers    []*Reader
	waiting    []*retirement // for readers, oldest first
	unfinished []*retirement // all that are not done, oldest first
	files      map[mappingKey][]*mapping
	mmaps      int
	bytes      uint64
}

// NewTable makes an empty table.
func NewTable(cfg Config) *Table {
	if cfg.MaxMaps <= 0 {
		cfg.MaxMaps = 65535
	}
	if cfg.PageSize == 0 {
		cfg.PageSize = 4096
	}
	if cfg.PageSize&(cfg.PageSize-1) != 0 {
		panic(fmt.Sprintf("dma: page size %d is not a power of two", cfg.PageSize))
	}
	if cfg.MaxMmaps <= 0 {
		cfg.MaxMmaps = 1024
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 8 << 40
	}
	if cfg.CloseFD == nil {
		cfg.CloseFD = func(fd int) { _ = unix.Close(fd) }
	}
	t := &Table{cfg: cfg, files: make(map[mappingKey][]*mapping)}
	t.snap.Store(&snapshot{gen: 1})
	return t
}

// Map adds a region (VFIO_USER_DMA_MAP). It owns m.FD from the call on and closes
// it on every path: the mapping keeps the file. Errors are ErrExists, ErrInvalid,
// ErrTooMany, ErrClosed, or what the kernel said; all carry an errno. Sections that have
// begun do not see the region, see Seen.
func (t *Table) Map(m Mapping) error {
	err := t.add(m)
	switch {
	case m.FD < 0:
	case err != nil:
		t.cfg.CloseFD(m.FD)
	default:
		_ = unix.Close(m.FD) // the file is a regular one and has another user
	}
	return err
}

func (t *Table) add(m Mapping) error {
	if err := t.validate(m); err != nil {
		return err
	}
	t.change.Lock()
	defer t.change.Unlock()
	old := t.snap.Load()
	switch {
	case t.closed:
		return ErrClosed
	case old.overlaps(m.IOVA, m.IOVA+(m.Size-1)):
		return fmt.Errorf("%w: %#x, %#x bytes", ErrExists, m.IOVA, m.Size)
	case old.count >= t.cfg.MaxMaps:
		return fmt.Errorf("%w: %d regions", ErrTooMany, old.count)
	}
	r := &region{t: t, iova: m.IOVA, size: m.Size, offset: m.Offset, prot: m.Prot}
	if m.FD >= 0 {
		f, err := t.open(m)
		if err != nil {
			return err
		}
		off := m.Offset - f.span.start
		r.file, r.mem = f, f.mem[off:off+m.Size:off+m.Size]
	}
	t.snap.Store(old.insert(r))
	return nil
}

func (t *Table) validate(m Mapping) error {
	const rw = ProtRead | ProtWrite
	page := t.cfg.PageSize - 1
	switch {
	case m.Size == 0:
		return fmt.Errorf("%w: size 0", ErrInvalid)
	case m.Size-1 > math.MaxUint64-m.IOVA:
		return fmt.Errorf("%w: %#x plus %#x bytes wraps around", ErrInvalid, m.IOVA, m.Size)
	case (m.IOVA|m.Size)&page != 0 || m.FD >= 0 && m.Offset&page != 0:
		return fmt.Errorf("%w: %#x, %#x bytes, offset %#x: not aligned to %#x",
			ErrInvalid, m.IOVA, m.Size, m.Offset, t.cfg.PageSize)
	case m.Prot&rw == 0 || m.Prot&^rw != 0:
		return fmt.Errorf("%w: protection %#x", ErrInvalid, uint32(m.Prot))
	}
	return nil
}

// Unmap removes the region with exactly this address and size
// (VFIO_USER_DMA_UNMAP), else ErrNotFound and done is not called. Readers that enter
// from now on do not see it. done (may be nil) is called once, when every reader
// that could see it has left its section, all pins are released and the memory is
// unmapped, unless another region uses the same part of the file: before Unmap
// returns if nothing stands in the way, else by the goroutine that releases last, or
// by one of its own if the file is large.
func (t *Table) Unmap(iova, size uint64, done func()) error {
	t.change.Lock()
	old := t.snap.Load()
	r := old.find(iova)
	if r == nil || r.iova != iova || r.size != size {
		t.change.Unlock()
		return fmt.Errorf("%w: %#x, %#x bytes", ErrNotFound, iova, size)
	}
	s := old.remove(r)
	t.snap.Store(s)
	t.change.Unlock()
	t.retire(&retirement{t: t, gen: s.gen, regions: []*region{r}, done: done})
	return nil
}

// UnmapAll removes every region. done is called as for Unmap, and not before all
// that was unmapped earlier is released too: then the table holds no memory.
func (t *Table) UnmapAll(done func()) { t.unmapAll(done, false) }

// Close is UnmapAll; Map refuses with ErrClosed from now on.
func (t *Table) Close(done func()) { t.unmapAll(done, true) }

func (t *Table) unmapAll(done func(), closing bool) {
	t.change.Lock()
	t.closed = t.closed || closing
	old := t.snap.Load()
	w := &retirement{t: t, gen: old.gen + 1, done: done, all: true}
	old.each(func(r *region) { w.regions = append(w.regions, r) })
	t.snap.Store(&snapshot{gen: w.gen, log: old.log})
	t.change.Unlock()
	t.retire(w)
}

// Seen calls done once, as Unmap does, when every section that began before has ended: from
// then on all readers see what is mapped now. Someone who was told of a region earlier could
// give its addresses to a reader that does not know them yet.
func (t *Table) Seen(done func()) {
	t.retire(&retirement{t: t, gen: t.snap.Load().gen, done: done})
}

// Lookup describes the region that holds all of [iova, iova+n) and allows p; its
// Local is nil if it is reached by message only. It needs no Reader, and so gives no
// right to touch Local.
func (t *Table) Lookup(iova, n uint64, p Prot) (Region, error) {
	r := t.snap.Load().locate(iova, n)
	switch {
	case r == nil:
		return Region{}, ErrNotMapped
	case r.prot&p != p:
		return Region{}, ErrProt
	}
	return r.public(), nil
}

// Generation changes with every Map and Unmap, and when logging starts or stops.
func (t *Table) Generation() uint64 { return t.snap.Load().gen }

// Regions lists the table in address order.
func (t *Table) Regions() []Region {
	s := t.snap.Load()
	out := make([]Region, 0, s.count)
	s.each(func(r *region) { out = append(out, r.public()) })
	return out
}

// Stats counts what a table holds.
type Stats struct {
	Regions int    // mapped now
	Mmaps   int    // mmaps behind them, and behind what is not yet released
	Bytes   uint64 // address space of those mmaps
	Retired int    // unmaps and others that still wait for a reader or a pin
	Readers int
}

// Stats counts what the table holds; all zero after Close when done was called and
// the readers are closed.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Regions: t.snap.Load().count,
		Mmaps:   t.mmaps,
		Bytes:   t.bytes,
		Retired: len(t.unfinished),
		Readers: len(t.readers),
	}
}
