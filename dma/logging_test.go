package dma

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// logging starts a log of everything in pages and gives back a function that reports
// the first n pages.
func logging(t testing.TB, tab *Table, ranges ...Range) (dirty func(n int) []int) {
	t.Helper()
	started := false
	size, err := tab.StartLogging(page, ranges, func() { started = true })
	must(t, err)
	if !started || size != page || tab.LogPageSize() != page {
		t.Fatalf("started: %v, page size %d and %d", started, size, tab.LogPageSize())
	}
	return func(n int) []int {
		t.Helper()
		bitmap := make([]uint64, n/64+1)
		must(t, tab.ReportDirty(Range{0, uint64(n) * page}, page, bitmap))
		return dirtyBits(bitmap)
	}
}

func wantDirty(t *testing.T, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("pages %v are dirty, want %v", got, want)
	}
}

// sixteen maps 16 pages of RAM at 0 and 16 that are reached by message behind them.
func sixteen(t *testing.T) (*Table, *Reader) {
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{Size: 16 * page, Prot: rw, FD: dup(t, newFile(t, 16*page))}))
	must(t, tab.Map(Mapping{IOVA: 16 * page, Size: 16 * page, Prot: rw, FD: -1}))
	return tab, newReader(t, tab)
}

func translated[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T { t.Helper(); must(t, err); return v }
}

func TestTranslationsForWritingAreLoggedAtExit(t *testing.T) {
	tab, r := sixteen(t)
	ok := translated[[]byte](t)
	r.Enter()
	ok(r.Bytes(0, 1, rw))
	r.Exit()
	dirty := logging(t, tab)
	r.Enter()
	ok(r.Bytes(0x1000, page, ProtWrite))
	ok(r.Bytes(0x3ff8, 16, rw))
	ok(r.Bytes(0x3ff8, 16, rw)) // again, with a last hit
	ok(r.Bytes(0x6000, page, ProtRead))
	ok(r.Span(14*page, 8*page, ProtWrite)) // goes on by message
	ok(r.Span(8*page, 2*page, ProtRead))
	wantDirty(t, dirty(64)) // nothing is certain to be written yet
	r.Exit()
	wantDirty(t, dirty(64), 1, 3, 4, 14, 15)
	r.Exit()
	wantDirty(t, dirty(64))
	r.Enter()
	if _, err := r.Bytes(17*page, 1, rw); err != ErrMessage {
		t.Error(err)
	}
	if _, err := r.Bytes(99*page, 1, rw); err != ErrNotMapped {
		t.Error(err)
	}
	r.Exit()
	wantDirty(t, dirty(128)) // what is refused is not written
}

func TestKeptTranslationsAndMessagesAreMarked(t *testing.T) {
	tab, r := sixteen(t)
	tab.MarkDirty(0, 1)
	r.Enter()
	r.Wrote(0, 1)
	r.Exit()
	dirty := logging(t, tab)
	r.Enter()
	r.Wrote(0x2000, 16)
	r.Wrote(0x2010, 16)
	r.Wrote(0x4ff0, 32)
	if len(r.wrote) != 2 {
		t.Errorf("%d notes, two writes follow one another", len(r.wrote))
	}
	wantDirty(t, dirty(64))
	r.Exit()
	tab.MarkDirty(20*page, 1)
	wantDirty(t, dirty(64), 2, 4, 5, 20)
}

func TestPinsAreLoggedWhenReleased(t *testing.T) {
	tab, r := sixteen(t)
	pin := func(iova, n uint64, p Prot) Pin {
		r.Enter()
		_, pin, err := r.Pin(iova, n, p)
		must(t, err)
		r.Exit()
		return pin
	}
	before, read := pin(0x1000, page, rw), pin(0x5000, page, ProtRead)
	dirty := logging(t, tab)
	after := pin(0x3000, 2*page, rw)
	dirty(64) // the translation counts as a write of its section
	wantDirty(t, dirty(64))
	before.Release()
	read.Release()
	wantDirty(t, dirty(64), 1)
	must(t, tab.Unmap(0, 16*page, nil))
	after.Release()
	wantDirty(t, dirty(64), 3, 4)
}

func TestLoggingStartsWhenEarlierSectionsHaveEnded(t *testing.T) {
	tab, r := sixteen(t)
	r.Enter()
	_, err := r.Bytes(0, page, rw)
	must(t, err)
	started := false
	_, err = tab.StartLogging(page, nil, func() { started = true })
	must(t, err)
	if started {
		t.Error("logging has started, and a section does not know of it")
	}
	other := newReader(t, tab)
	other.Enter() // begins after, and knows
	r.Exit()
	if !started {
		t.Error("logging has not started")
	}
	other.Wrote(0, 1)
	other.Exit()
	bitmap := make([]uint64, 1)
	must(t, tab.ReportDirty(Range{0, page}, page, bitmap))
	wantDirty(t, dirtyBits(bitmap), 0)
}

func TestLogOutlivesTheMemoryTable(t *testing.T) {
	tab, r := sixteen(t)
	dirty := logging(t, tab)
	tab.MarkDirty(0x1000, 1)
	r.Enter()
	_, err := r.Bytes(0x2000, 1, rw)
	must(t, err)
	released := false
	must(t, tab.Unmap(0, 16*page, func() {
		released = true
		wantDirty(t, dirty(64), 1, 2) // complete when the memory is released
	}))
	r.Exit()
	if !released {
		t.Fatal("not released")
	}
	must(t, tab.Map(Mapping{Size: 16 * page, Prot: rw, FD: dup(t, newFile(t, 16*page))}))
	r.Enter()
	_, err = r.Bytes(0x3000, 1, rw)
	must(t, err)
	tab.UnmapAll(nil)
	r.Exit()
	wantDirty(t, dirty(64), 3)
	tab.MarkDirty(0x4000, 1)
	wantDirty(t, dirty(64), 4)
}

func TestLoggingStartsAndStops(t *testing.T) {
	tab, r := sixteen(t)
	gen := tab.Generation()
	wantErr(t, tab.ReportDirty(Range{0, page}, page, make([]uint64, 1)), ErrNotLogging, syscall.EINVAL)
	dirty := logging(t, tab, Range{0x2000, 0x1000})
	if tab.Generation() == gen {
		t.Error("kept translations are not renewed when logging starts")
	}
	tab.MarkDirty(0, 16*page)
	wantDirty(t, dirty(64), 2)
	tab.MarkDirty(0x2000, 1)
	dirty = logging(t, tab, Range{0x8000, 0x1000}) // one more; nothing is forgotten
	tab.MarkDirty(0x8000, 1)
	wantDirty(t, dirty(64), 2, 8)
	dirty = logging(t, tab)
	tab.MarkDirty(0x9000, 1)
	wantDirty(t, dirty(64), 9)
	_, err := tab.StartLogging(2*page, nil, nil)
	wantErr(t, err, ErrInvalid, syscall.EINVAL)
	r.Enter()
	_, err = r.Bytes(0, page, rw)
	must(t, err)
	tab.StopLogging()
	r.Exit()
	tab.StopLogging()
	if tab.LogPageSize() != 0 {
		t.Error("a log that was stopped has a page size")
	}
	wantErr(t, tab.ReportDirty(Range{0, page}, page, make([]uint64, 1)), ErrNotLogging, syscall.EINVAL)
	wantDirty(t, logging(t, tab)(64)) // a new log knows nothing of the old one
}

func TestLogPageSize(t *testing.T) {
	for _, c := range []struct{ hint, want uint64 }{
		{1, 4096}, {512, 4096}, {4096, 4096}, {6000, 4096}, {8192, 8192}, {2 << 20, 2 << 20}, {1<<63 + 1, 1 << 30},
	} {
		tab := newTable(t, Config{})
		got, err := tab.StartLogging(c.hint, nil, nil)
		if err != nil || got != c.want || tab.LogPageSize() != c.want {
			t.Errorf("hint %d: %d, %v, want %d", c.hint, got, err, c.want)
		}
	}
}

func TestBadLogsAreRefused(t *testing.T) {
	tab := newTable(t, Config{})
	for _, c := range []struct {
		page   uint64
		ranges []Range
	}{{0, nil}, {page, []Range{{0, 0}}}, {page, []Range{{0, page}, {1 << 63, 1<<63 + 1}}}} {
		_, err := tab.StartLogging(c.page, c.ranges, func() { t.Error("started") })
		wantErr(t, err, ErrInvalid, syscall.EINVAL)
	}
	logging(t, tab)
	for _, c := range []struct {
		r     Range
		page  uint64
		words int
	}{
		{Range{0, 0}, page, 1}, {Range{page, ^uint64(0)}, page, 1 << 20}, {Range{0, page}, 0, 1}, {Range{0, page}, 3 * page, 1},
		{Range{0, 65 * page}, page, 1}, {Range{0, 64*page + 1}, page, 1}, {Range{0, page}, page, 0},
	} {
		wantErr(t, tab.ReportDirty(c.r, c.page, make([]uint64, c.words)), ErrInvalid, syscall.EINVAL)
	}
}

// TestNoWriteIsLost: whoever copies what is reported, while devices write in every way
// there is, has a copy of all of the memory in the end.
func TestNoWriteIsLost(t *testing.T) {
	const pages, writers, rounds = 1024, 4, 20000
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{Size: pages * page, Prot: rw, FD: dup(t, newFile(t, pages*page))}))
	region, err := tab.Lookup(0, pages*page, rw)
	must(t, err)
	memory := region.Local
	logging(t, tab)
	var writing atomic.Int32
	writing.Store(writers)
	var wg sync.WaitGroup
	for w := range writers {
		r := newReader(t, tab)
		wg.Go(func() {
			defer writing.Add(-1)
			rng := rand.New(rand.NewPCG(uint64(w), 3))
			for i := range uint32(rounds) {
				iova := rng.Uint64N(pages) * page
				at := int(iova) + 4*w // a word of each writer's own in every page
				r.Enter()
				switch i % 4 {
				case 0: // a translation
					if _, err := r.Bytes(iova, page, rw); err != nil {
						t.Error(err)
					}
					runtime.Gosched() // a report may come now: it must not be the last word
					Store32(memory, at, i+1)
				case 1: // one that was kept
					Store32(memory, at, i+1)
					r.Wrote(iova, 8)
				case 2: // a pin that outlives the section
					_, pin, err := r.Pin(iova, page, rw)
					if err != nil {
						t.Error(err)
					}
					r.Exit()
					runtime.Gosched()
					Store32(memory, at, i+1)
					pin.Release()
				default: // without a reader
					Store32(memory, at, i+1)
					tab.MarkDirty(iova, 4)
				}
				r.Exit()
			}
		})
	}
	replica := make([]byte, len(memory))
	bitmap := make([]uint64, pages/64)
	for done := false; !done; {
		done = writing.Load() == 0 // then this round is the last one
		clear(bitmap)
		must(t, tab.ReportDirty(Range{0, pages * page}, page, bitmap))
		for _, p := range dirtyBits(bitmap) {
			for off := p * page; off < p*page+4*writers; off += 4 {
				Store32(replica, off, Load32(memory, off))
			}
		}
	}
	wg.Wait()
	if !bytes.Equal(replica, memory) {
		t.Error("the copy differs from the memory")
	}
}

func TestLoggingAllocatesNothingInTheLongRun(t *testing.T) {
	tab, r := sixteen(t)
	logging(t, tab)
	section := func() {
		r.Enter()
		for i := range uint64(16) {
			if _, err := r.Bytes(i*page, 64, rw); err != nil {
				t.Error(err)
			}
		}
		r.Wrote(0, 1)
		_, pin, _ := r.Pin(0, page, rw)
		r.Exit()
		pin.Release()
	}
	section()
	if n := testing.AllocsPerRun(100, section); n != 0 && !invariants {
		t.Errorf("%v allocations for a section", n)
	}
}

// What lies at the end of the address space does not go on at its beginning.
func TestWritesAtBothEndsOfTheAddressSpace(t *testing.T) {
	tab, r := sixteen(t)
	const top = -page & (1<<64 - 1)
	must(t, tab.Map(Mapping{IOVA: top, Size: page, Prot: rw, FD: dup(t, newFile(t, page))}))
	dirty := logging(t, tab)
	ok := translated[[]byte](t)
	r.Enter()
	ok(r.Bytes(top, page, ProtWrite))
	ok(r.Bytes(0, 1, ProtWrite))
	r.Exit()
	wantDirty(t, dirty(16), 0)
	bitmap := make([]uint64, 1)
	must(t, tab.ReportDirty(Range{top, page}, page, bitmap))
	wantDirty(t, dirtyBits(bitmap), 0)
}
