package dma

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
)

// Range is a range of I/O virtual addresses; both are bytes. Size is 0 for 1<<64.
type Range struct{ IOVA, Size uint64 }

func (r Range) last() uint64 { return r.IOVA + (r.Size - 1) }

const (
	// dirtyChunkPages is the number of pages in a chunk of a log: 4 KiB of bits.
	dirtyChunkPages = 1 << 15
	dirtyBuckets    = 1 << 12
	// maxDirtyChunks bounds the memory of a log to 64 MiB of bits, which is enough for
	// 2 TiB that were written in pages of 4 KiB.
	maxDirtyChunks = 1 << 14
	// maxLogRanges bounds the ranges of a log; with more, all addresses are logged.
	maxLogRanges = 1 << 16
)

// dirtyLog records which pages were written. It is immutable but for the pages, which
// logs of the same table share as long as logging is not stopped.
type dirtyLog struct {
	shift  uint    // a page has 1<<shift bytes
	ranges []Range // in address order, with gaps between them; nil: all addresses
	pages  *dirtyPages
}

// dirtyPages are bits, one to a page, in chunks that exist where something was written.
type dirtyPages struct {
	buckets [dirtyBuckets]atomic.Pointer[dirtyChunk]
	chunks  atomic.Int64
	limit   int64
	// full: a chunk was needed that the limit forbids. From then on every page counts
	// as written, always.
	full atomic.Bool
}

// dirtyChunk is immutable but for its bits.
type dirtyChunk struct {
	index uint64 // number of the first page over dirtyChunkPages
	next  *dirtyChunk
	words [dirtyChunkPages / 64]atomic.Uint64
}

func (d *dirtyPages) bucket(index uint64) *atomic.Pointer[dirtyChunk] {
	// Chunks that are neighbours are in buckets that are neighbours; the upper bits are
	// mixed in for guests with memory at regular distances.
	return &d.buckets[(index^index>>12^index>>24^index>>36)%dirtyBuckets]
}

// find gives a chunk, nil if nothing in it was written.
func (d *dirtyPages) find(index uint64) *dirtyChunk {
	for c := d.bucket(index).Load(); c != nil; c = c.next {
		if c.index == index {
			return c
		}
	}
	return nil
}

// need gives a chunk, nil if there can be no more.
func (d *dirtyPages) need(index uint64) *dirtyChunk {
	if c := d.find(index); c != nil {
		return c
	}
	if d.chunks.Add(1) > d.limit {
		d.chunks.Add(-1)
		d.full.Store(true)
		return nil
	}
	b := d.bucket(index)
	c := &dirtyChunk{index: index}
	for {
		c.next = b.Load()
		for o := c.next; o != nil; o = o.next {
			if o.index == index { // somebody else was quicker
				d.chunks.Add(-1)
				return o
			}
		}
		if b.CompareAndSwap(c.next, c) {
			return c
		}
	}
}

// mark records a write, which has happened already: a report that comes between would
// clear a mark that was set earlier.
func (l *dirtyLog) mark(iova, n uint64) {
	if n == 0 {
		return
	}
	last := iova + min(n-1, math.MaxUint64-iova)
	if l.ranges == nil {
		l.pages.mark(iova>>l.shift, last>>l.shift)
		return
	}
	i, _ := slices.BinarySearchFunc(l.ranges, iova, func(r Range, v uint64) int { return cmp.Compare(r.last(), v) })
	for ; i < len(l.ranges) && l.ranges[i].IOVA <= last; i++ {
		r := l.ranges[i]
		l.pages.mark(max(iova, r.IOVA)>>l.shift, min(last, r.last())>>l.shift)
	}
}

// mark sets the bits of pages first to last. It sets them whatever they are: only a
// read-modify-write keeps the write that it follows from being seen after it.
func (d *dirtyPages) mark(first, last uint64) {
	for {
		end := min(last, first|63)
		if c := d.need(first / dirtyChunkPages); c != nil {
			c.words[first%dirtyChunkPages/64].Or(ones(first, end))
		}
		if end == last {
			return
		}
		first = end + 1
	}
}

// ones are the bits from first to last of the word that both are in.
func ones(first, last uint64) uint64 {
	return math.MaxUint64 << (first % 64) & (math.MaxUint64 >> (63 - last%64))
}

// report sets a bit in bitmap for every 1<<shift bytes from r.IOVA on of which
// something was written, and forgets what it has reported. A page of the log that lies
// only in part in the range is reported and not forgotten.
func (l *dirtyLog) report(r Range, shift uint, bitmap []uint64) {
	if l.pages.full.Load() {
		setBits(bitmap, 0, (r.Size-1)>>shift)
		return
	}
	w := dirtyReport{log: l, r: r, shift: shift, bitmap: bitmap}
	w.first, w.last = r.IOVA>>l.shift, r.last()>>l.shift
	w.keepFirst = r.IOVA != w.first<<l.shift
	w.keepLast = r.last() != w.last<<l.shift|(1<<l.shift-1)
	w.aligned = shift == l.shift && !w.keepFirst
	from, to := w.first/dirtyChunkPages, w.last/dirtyChunkPages
	if to-from >= uint64(l.pages.chunks.Load()) {
		for i := range l.pages.buckets {
			for c := l.pages.buckets[i].Load(); c != nil; c = c.next {
				if from <= c.index && c.index <= to {
					w.chunk(c)
				}
			}
		}
		return
	}
	for index := from; ; index++ {
		if c := l.pages.find(index); c != nil {
			w.chunk(c)
		}
		if index == to {
			return
		}
	}
}

// dirtyReport is the work of one report.
type dirtyReport struct {
	log                 *dirtyLog
	r                   Range
	shift               uint
	bitmap              []uint64
	first, last         uint64 // pages of the log that the range touches
	keepFirst, keepLast bool   // that page is not all in the range
	aligned             bool   // a bit of the log is a bit of the report
}

func (w *dirtyReport) chunk(c *dirtyChunk) {
	base := c.index * dirtyChunkPages
	first, last := max(w.first, base), min(w.last, base|(dirtyChunkPages-1))
	for {
		end := min(last, first|63)
		word := &c.words[first%dirtyChunkPages/64]
		if word.Load() != 0 {
			mask := ones(first, end)
			forget := mask
			if w.keepFirst && first == w.first {
				forget &^= 1 << (first % 64)
			}
			if w.keepLast && end == w.last {
				forget &^= 1 << (end % 64)
			}
			if got := word.And(^forget) & mask; got != 0 {
				w.put(first&^63, got)
			}
		}
		if end == last {
			return
		}
		first = end + 1
	}
}

// put reports the pages of a word of the log, which begins with page.
func (w *dirtyReport) put(page, got uint64) {
	if w.aligned {
		if page < w.first {
			got >>= w.first - page
			page = w.first
		}
		bit := page - w.first
		w.bitmap[bit/64] |= got << (bit % 64)
		if over := got >> 1 >> (63 - bit%64); over != 0 {
			w.bitmap[bit/64+1] |= over
		}
		return
	}
	low, high := uint64(bits.TrailingZeros64(got)), uint64(63-bits.LeadingZeros64(got))
	if from, to := w.bit(page+low, false), w.bit(page+high, true); from == to {
		w.bitmap[from/64] |= 1 << (from % 64)
		return
	}
	for got != 0 {
		low = uint64(bits.TrailingZeros64(got))
		run := uint64(bits.TrailingZeros64(^(got >> low)))
		setBits(w.bitmap, w.bit(page+low, false), w.bit(page+low+run-1, true))
		got &^= ones(low, low+run-1)
	}
}

// bit is the bit of the report for the first or the last byte of a page that is in the
// range.
func (w *dirtyReport) bit(page uint64, last bool) uint64 {
	addr := page << w.log.shift
	if last {
		addr = min(addr|(1<<w.log.shift-1), w.r.last())
	}
	return (max(addr, w.r.IOVA) - w.r.IOVA) >> w.shift
}

// setBits sets bits first to last.
func setBits(bitmap []uint64, first, last uint64) {
	for {
		end := min(last, first|63)
		bitmap[first/64] |= ones(first, end)
		if end == last {
			return
		}
		first = end + 1
	}
}

// union gives the ranges of a and b, in order and with gaps between them; nil stands for
// all addresses.
func union(a, b []Range) []Range {
	if a == nil || b == nil {
		return nil
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Range) int { return cmp.Compare(x.IOVA, y.IOVA) })
	out := all[:1]
	for _, r := range all[1:] {
		p := &out[len(out)-1]
		switch {
		case p.last() != math.MaxUint64 && r.IOVA > p.last()+1:
			out = append(out, r)
		case r.last() > p.last():
			p.Size = r.last() - p.IOVA + 1
		}
	}
	if len(out) > maxLogRanges {
		return nil
	}
	return out
}
