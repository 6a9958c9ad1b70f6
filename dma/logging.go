package dma

import (
	"fmt"
	"math/bits"
)

// maxLogPage is the largest page size of a log, in bytes.
const maxLogPage = 1 << 30

// ErrNotLogging: nothing is logged.
var ErrNotLogging = &Error{ErrInvalid.Errno, "writes are not logged"}

// StartLogging begins to record which pages are written (DMA_LOGGING_START): those of
// the ranges, or all if there are none. It returns the size of a page: pageSize rounded
// down to a power of two, but from the table's page size to 1 GiB. done is called as for
// Unmap, when every section that began before has ended: what is written from then on is
// recorded.
//
// Where logging is on already ranges are added; pageSize must then be the log's
// (ErrInvalid).
func (t *Table) StartLogging(pageSize uint64, ranges []Range, done func()) (uint64, error) {
	if pageSize == 0 {
		return 0, fmt.Errorf("%w: page size 0 of a log", ErrInvalid)
	}
	for _, r := range ranges {
		if r.Size == 0 || r.last() < r.IOVA {
			return 0, fmt.Errorf("%w: range %#x, %#x bytes of a log", ErrInvalid, r.IOVA, r.Size)
		}
	}
	if len(ranges) == 0 {
		ranges = nil
	} else {
		ranges = union([]Range{}, ranges)
	}
	l := &dirtyLog{
		shift:  uint(bits.Len64(min(max(pageSize, t.cfg.PageSize), maxLogPage)) - 1),
		ranges: ranges,
	}
	t.change.Lock()
	old := t.snap.Load()
	if o := old.log; o != nil {
		if pageSize != 1<<o.shift {
			t.change.Unlock()
			return 0, fmt.Errorf("%w: page size %d of a log that has %d", ErrInvalid, pageSize, uint64(1)<<o.shift)
		}
		l.shift, l.pages, l.ranges = o.shift, o.pages, union(o.ranges, ranges)
	} else {
		l.pages = &dirtyPages{limit: maxDirtyChunks}
	}
	s := old.logged(l)
	t.log.Store(l)
	t.snap.Store(s)
	t.change.Unlock()
	// A section that began before does not know of the log.
	t.retire(&retirement{t: t, gen: s.gen, done: done})
	return 1 << l.shift, nil
}

// StopLogging forgets what was recorded (DMA_LOGGING_STOP).
func (t *Table) StopLogging() {
	t.change.Lock()
	defer t.change.Unlock()
	if old := t.snap.Load(); old.log != nil {
		t.log.Store(nil)
		t.snap.Store(old.logged(nil))
	}
}

// LogPageSize is the size of a page of the log in bytes, 0 if nothing is logged.
func (t *Table) LogPageSize() uint64 {
	if l := t.log.Load(); l != nil {
		return 1 << l.shift
	}
	return 0
}

// ReportDirty tells which parts of r were written since they were reported last
// (DMA_LOGGING_REPORT): bit i of bitmap, counted through its words, stands for pageSize
// bytes, a power of two, from r.IOVA+i*pageSize on. bitmap is zero and long enough
// (codec.BitmapBytes). What happens at the same time is in this report or in the next
// one. The range need not be mapped: what was written before an Unmap stays recorded.
//
// Where pages of the log are smaller than pageSize a bit stands for several of them;
// where they are larger they are repeated, and one that lies in the range only in part is
// reported again. It takes time in proportion to what was written.
func (t *Table) ReportDirty(r Range, pageSize uint64, bitmap []uint64) error {
	l := t.log.Load()
	switch {
	case l == nil:
		return ErrNotLogging
	case r.Size == 0 || r.last() < r.IOVA:
		return fmt.Errorf("%w: report of %#x, %#x bytes", ErrInvalid, r.IOVA, r.Size)
	case bits.OnesCount64(pageSize) != 1:
		return fmt.Errorf("%w: page size %d of a report", ErrInvalid, pageSize)
	}
	shift := uint(bits.TrailingZeros64(pageSize))
	if (r.Size-1)>>shift >= uint64(len(bitmap))*64 {
		return fmt.Errorf("%w: %d words for a report of %#x bytes with a bit for %d", ErrInvalid, len(bitmap), r.Size, pageSize)
	}
	l.report(r, shift, bitmap)
	return nil
}

// MarkDirty records a write of n bytes at iova that no Reader and no Pin knows of: by
// message, say. Call it after the write. It costs a load if nothing is logged.
func (t *Table) MarkDirty(iova, n uint64) {
	if l := t.log.Load(); l != nil {
		l.mark(iova, n)
	}
}

// Wrote tells that the section writes, or has written, n bytes at iova through a
// translation that is kept from an earlier section. What was translated for writing in
// this section is known already. It costs a branch if nothing is logged.
func (r *Reader) Wrote(iova, n uint64) {
	if r.log != nil {
		r.note(iova, n)
	}
}

// note keeps a write in mind until Exit, when it has happened for certain.
func (r *Reader) note(iova, n uint64) {
	if k := len(r.wrote) - 1; k >= 0 && r.wrote[k].IOVA+r.wrote[k].Size == iova && iova != 0 {
		r.wrote[k].Size += n
		return
	}
	r.wrote = append(r.wrote, Range{iova, n})
}

// maxKeptNotes is how much room for notes a Reader keeps for the next section.
const maxKeptNotes = 4096

// settle marks what was noted. The section has not ended: an Unmap that waits for it
// reports these pages.
func (r *Reader) settle() {
	for _, w := range r.wrote {
		r.log.mark(w.IOVA, w.Size)
	}
	r.wrote = r.wrote[:0]
	if cap(r.wrote) > maxKeptNotes {
		r.wrote = nil
	}
}

// logged gives s with another log.
func (s *snapshot) logged(l *dirtyLog) *snapshot {
	n := *s
	n.gen++
	n.log = l
	return &n
}

// mark records the pin's write, if it is one. It tells whether nothing is left to record.
func (p Pin) mark() bool {
	if p.n == 0 {
		return true
	}
	l := p.r.t.log.Load()
	if l != nil {
		l.mark(p.iova, p.n)
	}
	return l != nil
}
