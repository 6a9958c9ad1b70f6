package dma

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

func newLog(shift uint, ranges ...Range) *dirtyLog {
	return &dirtyLog{shift: shift, ranges: ranges, pages: &dirtyPages{limit: maxDirtyChunks}}
}

func words(r Range, shift uint) []uint64 { return make([]uint64, (r.Size-1)>>shift/64+1) }

// dirtyBits lists the bits that are set.
func dirtyBits(bitmap []uint64) (list []int) {
	for i := range len(bitmap) * 64 {
		if bitmap[i/64]>>(i%64)&1 != 0 {
			list = append(list, i)
		}
	}
	return list
}

func TestReportConvertsPageSizes(t *testing.T) {
	const top = math.MaxUint64 &^ 0xfff // the last page of all
	for _, c := range []struct {
		name   string
		shift  uint // of the log
		ranges []Range
		marks  []Range
		report Range
		pages  uint // shift of the report
		first  []int
		again  []int // the same report once more
	}{
		{name: "nothing was written", shift: 12, report: Range{0, 1 << 20}, pages: 12},
		{name: "one byte", shift: 12, marks: []Range{{0x3fff, 1}}, report: Range{0, 1 << 20}, pages: 12, first: []int{3}},
		{name: "a write over an edge", shift: 12, marks: []Range{{0x3fff, 2}}, report: Range{0, 1 << 20}, pages: 12, first: []int{3, 4}},
		{name: "a write of nothing", shift: 12, marks: []Range{{0x3000, 0}}, report: Range{0, 1 << 20}, pages: 12},
		{name: "over the edge of a word", shift: 12, marks: []Range{{62 << 12, 4 << 12}}, report: Range{0, 1 << 20}, pages: 12, first: []int{62, 63, 64, 65}},
		{name: "over the edge of a chunk", shift: 12, marks: []Range{{dirtyChunkPages<<12 - 1, 2}}, report: Range{(dirtyChunkPages - 2) << 12, 4 << 12}, pages: 12, first: []int{1, 2}},
		{name: "range begins inside of a word", shift: 12, marks: []Range{{0x3000, 70 << 12}}, report: Range{0x5000, 67 << 12}, pages: 12, first: upTo(67)},
		{name: "range ends before the write", shift: 12, marks: []Range{{0x5000, 0x1000}}, report: Range{0, 0x5000}, pages: 12},
		{name: "smaller pages repeat bits", shift: 12, marks: []Range{{0x1000, 1}}, report: Range{0, 0x4000}, pages: 10, first: []int{4, 5, 6, 7}},
		{name: "larger pages combine bits", shift: 12, marks: []Range{{0x1000, 1}, {0x6000, 0x3000}}, report: Range{0, 1 << 20}, pages: 14, first: []int{0, 1, 2}},
		{name: "pages larger than a word of the log", shift: 12, marks: []Range{{65 << 12, 1}, {200 << 12, 1}}, report: Range{0, 1 << 30}, pages: 18, first: []int{1, 3}},
		{name: "one page for all", shift: 12, marks: []Range{{1 << 40, 1}}, report: Range{0, math.MaxUint64}, pages: 63, first: []int{0}},
		{name: "many addresses, few chunks", shift: 12, marks: []Range{{1 << 50, 1}, {1 << 62, 1}}, report: Range{0, math.MaxUint64}, pages: 60, first: []int{0, 4}},
		{name: "a page that is in the range in part is reported again", shift: 16, marks: []Range{{0x10000, 1}, {0x2ffff, 1}, {0x30000, 1}},
			report: Range{0x18000, 0x20000}, pages: 12, first: upTo(32), again: slices.Concat(upTo(8), []int{24, 25, 26, 27, 28, 29, 30, 31})},
		{name: "a range that is not aligned", shift: 12, marks: []Range{{0x1000, 0x1000}}, report: Range{0x800, 0x1800}, pages: 12, first: []int{0, 1}},
		{name: "a range that is not aligned with smaller pages", shift: 12, marks: []Range{{0x1000, 0x1000}}, report: Range{0xc00, 0x1800}, pages: 10, first: []int{1, 2, 3, 4}},
		{name: "the end of the range cuts a page", shift: 12, marks: []Range{{0x1000, 0x1000}}, report: Range{0, 0x1400}, pages: 10, first: []int{4}, again: []int{4}},
		{name: "the top of the address space", shift: 12, marks: []Range{{top, 0x1000}}, report: Range{top - 0x1000, 0x2000}, pages: 12, first: []int{1}},
		{name: "a write that would wrap around", shift: 12, marks: []Range{{top, 0x10000}}, report: Range{0, 0x1000}, pages: 12},
		{name: "outside of the ranges logged", shift: 12, ranges: []Range{{0x4000, 0x1000}}, marks: []Range{{0, 0x4000}, {0x5000, 0x1000}}, report: Range{0, 1 << 20}, pages: 12},
		{name: "a write over several ranges", shift: 12, ranges: []Range{{0x1000, 0x1000}, {0x4000, 0x2000}, {0x9000, 0x1000}}, marks: []Range{{0x1800, 0x3000}},
			report: Range{0, 1 << 20}, pages: 12, first: []int{1, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog(c.shift, c.ranges...)
			for _, m := range c.marks {
				l.mark(m.IOVA, m.Size)
			}
			for _, want := range [][]int{c.first, c.again} {
				bitmap := words(c.report, c.pages)
				l.report(c.report, c.pages, bitmap)
				if got := dirtyBits(bitmap); !slices.Equal(got, want) {
					t.Errorf("bits %v, want %v", got, want)
				}
			}
		})
	}
}

// TestRandomReportsAgainstModel compares with a plain set of pages.
func TestRandomReportsAgainstModel(t *testing.T) {
	const space = 1 << 20
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		shift := 6 + rng.UintN(6)
		base := []uint64{0, 5 << 30, math.MaxUint64 - space + 1, (dirtyChunkPages << shift) - space/2}[rng.IntN(4)]
		l := newLog(shift)
		model := map[uint64]bool{}
		for range 300 {
			off := rng.Uint64N(space)
			r := Range{base + off, 1 + rng.Uint64N(space-off)>>rng.UintN(14)}
			if rng.IntN(3) > 0 {
				l.mark(r.IOVA, r.Size)
				for p := r.IOVA >> shift; ; p++ {
					model[p] = true
					if p == r.last()>>shift {
						break
					}
				}
				continue
			}
			rs := 5 + rng.UintN(10)
			if rng.IntN(2) == 0 { // aligned, which has a way of its own
				rs = shift
				r.Size += r.IOVA & (1<<shift - 1)
				r.IOVA &^= 1<<shift - 1
			}
			got, want := words(r, rs), words(r, rs)
			for p := range model {
				first, last := max(p<<shift, r.IOVA), min(p<<shift|(1<<shift-1), r.last())
				if first > last {
					continue
				}
				for b := (first - r.IOVA) >> rs; b <= (last-r.IOVA)>>rs; b++ {
					want[b/64] |= 1 << (b % 64)
				}
				if first == p<<shift && last == p<<shift|(1<<shift-1) {
					delete(model, p)
				}
			}
			l.report(r, rs, got)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: report of %#x with 1<<%d from a log with 1<<%d differs from the model", seed, r, rs, shift)
			}
		}
	}
}

// A client that scatters its memory cannot make the log grow without bound; what there
// is no room for counts as written.
func TestFullLogReportsEverything(t *testing.T) {
	l := newLog(12)
	l.pages.limit = 3
	const chunk = dirtyChunkPages << 12
	for i := range uint64(3) {
		l.mark(i*chunk, 1)
	}
	l.mark(0x5000, 1) // in a chunk that is there
	if l.pages.full.Load() {
		t.Fatal("full too early")
	}
	l.mark(7*chunk, 1)
	if n := l.pages.chunks.Load(); n != 3 {
		t.Errorf("%d chunks, the limit is 3", n)
	}
	for range 2 {
		r := Range{9 * chunk, 5 << 12}
		bitmap := words(r, 12)
		l.report(r, 12, bitmap)
		if got := dirtyBits(bitmap); !slices.Equal(got, upTo(5)) {
			t.Errorf("bits %v of a log that is full", got)
		}
	}
}

func TestRangesAreMerged(t *testing.T) {
	for _, c := range []struct {
		name    string
		a, b, u []Range
	}{
		{"all and some", nil, []Range{{1, 2}}, nil},
		{"some and all", []Range{{1, 2}}, nil, nil},
		{"apart", []Range{{10, 5}}, []Range{{0, 5}}, []Range{{0, 5}, {10, 5}}},
		{"touching", []Range{{0, 5}}, []Range{{5, 5}}, []Range{{0, 10}}},
		{"overlapping", []Range{{0, 5}, {20, 5}}, []Range{{3, 18}}, []Range{{0, 25}}},
		{"inside", []Range{{0, 50}}, []Range{{3, 18}}, []Range{{0, 50}}},
		{"all but the last address, and that", []Range{{0, math.MaxUint64}}, []Range{{math.MaxUint64, 1}, {5, 1}}, []Range{{0, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := union(c.a, c.b)
			if !slices.Equal(got, c.u) {
				t.Errorf("%v, want %v", got, c.u)
			}
		})
	}
	l := newLog(12, Range{0, 0}) // 1<<64 bytes, which no Size can tell
	l.mark(math.MaxUint64, 1)
	if l.pages.chunks.Load() != 1 {
		t.Error("the last address is not in the range of all")
	}
}

// TestConcurrentMarksAreAllReported: every bit set by one of many goroutines is in
// exactly one report or, if it was set again, in more, but never in none.
func TestConcurrentMarksAreAllReported(t *testing.T) {
	const pages, writers = 1 << 12, 4
	l := newLog(12)
	r := Range{0, pages << 12}
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for p := w; p < pages; p += writers {
				l.mark(p<<12, 1)
			}
		})
	}
	stop := make(chan struct{})
	all := words(r, 12)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		for done := false; !done; {
			select {
			case <-stop:
				done = true
			default:
			}
			got := words(r, 12)
			l.report(r, 12, got)
			for i := range all {
				if all[i]&got[i] != 0 {
					t.Errorf("word %d: %#x was reported already", i, all[i]&got[i])
				}
				all[i] |= got[i]
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-reported
	if got := dirtyBits(all); len(got) != pages {
		t.Errorf("%d of %d pages were reported", len(got), pages)
	}
}
