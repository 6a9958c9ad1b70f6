package dma

import (
	"slices"
	"sync/atomic"
)

// Reader translates addresses for one goroutine at a time, usually a worker. It
// works only between Enter and Exit; what Bytes returned must not be used after.
type Reader struct {
	_ [64]byte // section is written for every batch: keep it off other readers' lines
	t *Table
	// section is 0 outside, else at most the generation of the snapshot in use.
	section atomic.Uint64
	snap    *snapshot

	// The last region hit, of snap.
	base uint64
	mem  []byte
	prot Prot // without ProtWrite while writes are logged
	hit  *region

	log   *dirtyLog // of snap
	wrote []Range   // what the section writes, if that is logged

	_ [64]byte
}

// NewReader registers a reader. Close it: a reader that stays in a section holds
// back every later Unmap.
func (t *Table) NewReader() *Reader {
	r := &Reader{t: t}
	t.mu.Lock()
	t.readers = append(t.readers, r)
	t.mu.Unlock()
	return r
}

// Close leaves the section, if any, and unregisters the reader. Idempotent.
func (r *Reader) Close() {
	r.Exit()
	t := r.t
	t.mu.Lock()
	if i := slices.Index(t.readers, r); i >= 0 {
		t.readers = slices.Delete(t.readers, i, i+1)
	}
	t.mu.Unlock()
}

// Enter begins a section: what is mapped now stays mapped until Exit. Wait-free. Sections do
// not nest.
func (r *Reader) Enter() {
	if invariants && r.section.Load() != 0 {
		panic("dma: Reader.Enter inside a section")
	}
	// The generation announced may be older than the snapshot used, if one is
	// published in between; then an Unmap waits for this section without need.
	r.section.Store(r.t.snap.Load().gen)
	if s := r.t.snap.Load(); s != r.snap {
		r.snap, r.log = s, s.log
		r.base, r.mem, r.prot, r.hit = 0, nil, 0, nil
	}
}

// Exit ends the section. Idempotent, so that a recover may call it. What was translated
// for writing is logged as written. If an Unmap waited for this reader alone, the memory
// is released here.
func (r *Reader) Exit() {
	if len(r.wrote) > 0 {
		r.settle()
	}
	r.section.Store(0)
	if r.t.waiters.Load() {
		r.t.reclaim()
	}
}

// Generation is that of the table inside this section: as long as it is the same,
// translations give the same memory, so that a caller can keep them from section
// to section.
func (r *Reader) Generation() uint64 { return r.snap.gen }

// Bytes gives the memory of [iova, iova+n), to be used until Exit. It never
// allocates. Errors are ErrNotMapped (also if the range leaves its region),
// ErrProt and ErrMessage. The guest may change the memory at any time, and the
// client may truncate it: run under debug.SetPanicOnFault.
func (r *Reader) Bytes(iova, n uint64, p Prot) ([]byte, error) {
	if off, size := iova-r.base, uint64(len(r.mem)); off < size && n <= size-off && r.prot&p == p {
		return r.mem[off : off+n : off+n], nil
	}
	return r.search(iova, n, p)
}

func (r *Reader) search(iova, n uint64, p Prot) ([]byte, error) {
	if invariants && r.section.Load() == 0 {
		panic("dma: Reader used outside a section")
	}
	g := r.hit
	if g == nil || !g.holds(iova, n) {
		g = r.snap.locate(iova, n)
	}
	switch {
	case g == nil:
		return nil, ErrNotMapped
	case g.prot&p != p:
		return nil, ErrProt
	case g.mem == nil:
		return nil, ErrMessage
	}
	r.base, r.mem, r.prot, r.hit = g.iova, g.mem, g.prot, g
	if r.log != nil {
		r.prot &^= ProtWrite // so that the next write comes here too
		if p&ProtWrite != 0 {
			r.note(iova, n)
		}
	}
	off := iova - g.iova
	return g.mem[off : off+n : off+n], nil
}

// Span is Bytes for a range that may go on in the next region: it gives the part
// of [iova, iova+n) that lies in the region of iova, at least one byte if n > 0.
func (r *Reader) Span(iova, n uint64, p Prot) ([]byte, error) {
	if _, err := r.Bytes(iova, min(n, 1), p); err != nil {
		return nil, err
	}
	off := iova - r.base
	n = min(n, uint64(len(r.mem))-off)
	if p&ProtWrite != 0 && n > 0 {
		r.Wrote(iova, n)
	}
	return r.mem[off : off+n : off+n], nil
}

// Pin is Bytes for asynchronous use: the memory stays mapped until the pin is
// released, also after Exit.
func (r *Reader) Pin(iova, n uint64, p Prot) ([]byte, Pin, error) {
	b, err := r.Bytes(iova, n, p)
	if err != nil {
		return nil, Pin{}, err
	}
	r.hit.pins.Add(1)
	pin := Pin{r: r.hit}
	if p&ProtWrite != 0 {
		pin.iova, pin.n = iova, n
	}
	return b, pin, nil
}
