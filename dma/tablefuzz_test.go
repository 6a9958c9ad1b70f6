package dma

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/fuzz/choice"
)

// FuzzTable: a table does what the model says, whatever is mapped, unmapped, translated, copied,
// pinned and logged, right or wrong, while the client truncates its memory: the same errors, the
// same bytes, the same pages written, and everything is released when nobody uses it any more,
// not earlier and not later.
//
//fuzz:covers dma/table.go dma/region.go dma/reader.go dma/snapshot.go dma/file.go dma/grace.go dma/logging.go dma/dirtylog.go
//fuzz:covers dma/holds_unsafe.go
func FuzzTable(f *testing.F) {
	choice.Fuzz(f, 32, 500, runTable)
}

func TestTablePrograms(t *testing.T) {
	choice.Programs(t, 200, 100, runTable)
}

const (
	filePages = 16
	slots     = 128 // pages of addresses that programs use, the upper half at the top of all
)

// tableRun is a program under way.
type tableRun struct {
	*testing.T
	*choice.Source
	table    *Table
	model    *tableModel
	readers  []*Reader
	views    []*modelView
	pins     []heldPin
	files    []*modelFile
	readOnly int // a descriptor of the first file
	device   int
	refused  int // descriptors that the table has closed because it refused them

	region *modelRegion // that was accessed last, and where that ended
	end    uint64
}

// heldPin is a pin with what it gives access to.
type heldPin struct {
	Pin
	b      []byte
	region *modelRegion
	at     uint64 // offset in the file
	write  Range
}

// runTable runs a program: one table after another, of which each is used until it is closed.
func runTable(t *testing.T, s *choice.Source) {
	t.Helper()
	runOneTable(t, s)
	for s.More() && !t.Failed() {
		runOneTable(t, s)
	}
}

func runOneTable(t *testing.T, s *choice.Source) {
	t.Helper()
	open := openDescriptors()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	m := &tableModel{gen: 1, mmaps: map[modelKey][]*modelMmap{}, maxMaps: choice.Pick(s, 65535, 5),
		maxMmaps: choice.Pick(s, 1024, 1024, 3), maxBytes: choice.Pick[uint64](s, 8<<40, 8<<40, 2*filePages*page, 6*page)}
	r := &tableRun{T: t, Source: s, model: m}
	r.table = NewTable(Config{MaxMaps: m.maxMaps, MaxMmaps: m.maxMmaps, MaxBytes: m.maxBytes, CloseFD: func(fd int) { r.refused++; _ = unix.Close(fd) }})
	r.open()
	for range s.Intn(8) {
		mapAny(r)
	}
	for step := 0; !t.Failed() && !(r.model.closed && s.Odds(16)) && s.More(); step++ {
		what := s.Intn(len(tableOperations))
		tableOperations[what].run(r)
		r.compare()
		if t.Failed() {
			t.Errorf("step %d: %s", step, tableOperations[what].name)
		}
	}
	r.close()
	if now := openDescriptors(); now != open {
		t.Errorf("%d descriptors are open, %d were", now, open)
	}
}

// openDescriptors counts those that a program can reach, at less cost than /proc.
func openDescriptors() (n int) {
	for fd := range 64 {
		if isOpen(fd) {
			n++
		}
	}
	return n
}

func (r *tableRun) open() {
	for range 2 {
		fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
		must(r.T, err)
		must(r.T, unix.Ftruncate(fd, filePages*page))
		r.files = append(r.files, &modelFile{fd: fd, size: filePages * page, data: make([]byte, filePages*page)})
		r.readers = append(r.readers, r.table.NewReader())
		r.views = append(r.views, &modelView{})
	}
	var err error
	r.readOnly, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", r.files[0].fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(r.T, err)
	r.device, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(r.T, err)
}

// close ends everything. Then the table holds nothing.
func (r *tableRun) close() {
	for k, reader := range r.readers {
		reader.Close()
		r.views[k].inside = false
	}
	for _, p := range r.pins {
		p.Release()
	}
	closed := false
	r.table.Close(func() { closed = true })
	if stats := r.table.Stats(); !closed || stats != (Stats{}) {
		r.Errorf("closed: %v, and still holds %+v", closed, stats)
	}
	for _, f := range r.files {
		_ = unix.Close(f.fd)
	}
	_, _ = unix.Close(r.readOnly), unix.Close(r.device)
}

// compare holds everything that can be seen against the model.
func (r *tableRun) compare() {
	r.Helper()
	want := r.model.settle(r.views)
	for _, w := range want {
		if !w.done {
			r.Error("something is not done that nobody holds back")
		}
	}
	for _, w := range r.model.waiting {
		if w.done {
			r.Error("something is done while somebody can see it")
		}
	}
	regions := r.table.Regions()
	if !slices.EqualFunc(regions, r.model.regions, func(got Region, want *modelRegion) bool {
		return got.IOVA == want.IOVA && got.Size == want.Size && got.Prot == want.Prot && got.Offset == want.Offset &&
			(got.Local != nil) == (want.file != nil) && (got.Local == nil || uint64(len(got.Local)) == got.Size)
	}) {
		r.Errorf("regions %s, want %d", ranges(regions), len(r.model.regions))
	}
	stats := Stats{Regions: len(regions), Mmaps: r.model.count, Bytes: r.model.bytes, Retired: len(r.model.waiting), Readers: len(r.readers)}
	if got := r.table.Stats(); got != stats {
		r.Errorf("%+v, want %+v", got, stats)
	}
	if got := r.table.Generation(); got != r.model.gen {
		r.Errorf("generation %d, want %d", got, r.model.gen)
	}
	size := uint64(0)
	if r.model.log != nil {
		size = r.model.log.page
	}
	if got := r.table.LogPageSize(); got != size {
		r.Errorf("a page of the log has %d bytes, want %d", got, size)
	}
	checkShape(r.T, r.table.snap.Load())
}

func (r *tableRun) agree(got, want error) {
	r.Helper()
	if want == nil && got != nil || !errors.Is(got, want) {
		r.Errorf("got %v, want %v", got, want)
	}
}

// waits gives the callback of what waits.
func (r *tableRun) waits(w **modelWait) func() {
	return func() {
		if *w == nil {
			*w = &modelWait{}
		}
		if (*w).done {
			r.Error("done twice")
		}
		(*w).done = true
	}
}

// page is the address of a page that programs use.
func (r *tableRun) page() uint64 {
	slot := uint64(r.Intn(slots))
	if slot >= slots/2 {
		return math.MaxUint64 - (slots-slot)*page + 1
	}
	return slot * page
}

// somewhere is an address, mostly one in a region, and a length, mostly one that fits.
func (r *tableRun) somewhere(regions []*modelRegion) (iova, n uint64) {
	if len(regions) > 0 && !r.Odds(8) {
		g, off := choice.Pick(r.Source, regions...), uint64(0)
		if r.region != nil && r.Bool() && slices.Contains(regions, r.region) {
			g, off = r.region, r.end-r.region.IOVA // go on there
		}
		if off == 0 || off >= g.Size || r.Bool() {
			off = uint64(r.Uint16()) % g.Size
		}
		most := min(g.Size-off, 3*page)
		if n = 1 + uint64(r.Uint16())%most; r.Odds(4) {
			n = r.Edge(most)
		}
		r.region, r.end = g, g.IOVA+off+n
		return g.IOVA + off, n
	}
	return r.page() + r.Edge(page), r.Edge(2 * page)
}

func (r *tableRun) prot() Prot { return choice.Pick(r.Source, rw, ProtRead, ProtWrite, rw) }

// reader is one inside a section.
func (r *tableRun) reader() (*Reader, *modelView) {
	k := r.Intn(len(r.readers))
	if r.views[k].inside && r.views[k].gen != r.model.gen && r.Bool() {
		r.exit(k)
	}
	if !r.views[k].inside {
		r.enter(k)
	}
	return r.readers[k], r.views[k]
}

func (r *tableRun) enter(k int) {
	r.readers[k].Enter()
	*r.views[k] = modelView{inside: true, gen: r.model.gen, regions: r.model.regions, log: r.model.log}
	if got := r.readers[k].Generation(); got != r.model.gen {
		r.Errorf("the section has generation %d, want %d", got, r.model.gen)
	}
}

func (r *tableRun) exit(k int) {
	for _, w := range r.views[k].wrote {
		r.views[k].log.mark(w.IOVA, w.Size)
	}
	r.views[k].wrote, r.views[k].inside = nil, false
	r.readers[k].Exit()
}

// touch reads or writes memory and compares it with the file's. The memory may be gone.
func (r *tableRun) touch(b []byte, f *modelFile, at uint64, p Prot, holder *Reader) {
	r.Helper()
	n := uint64(len(b))
	gone := n > 0 && at+n > f.size
	switch {
	case p&ProtWrite != 0:
		source := bytes.Repeat([]byte{r.Uint8()}, len(b))
		addr, fault := faults(func() { Copy(b, source) })
		r.checkFault(addr, fault, gone, holder)
		copy(f.data[at:at+n], source)
		if gone { // it ended somewhere
			clear(f.data[f.size:])
			if at < f.size {
				_, err := unix.Pread(f.fd, f.data[at:f.size], int64(at))
				must(r.T, err)
			}
		}
	case p&ProtRead != 0:
		got := make([]byte, len(b))
		addr, fault := faults(func() { Copy(got, b) })
		r.checkFault(addr, fault, gone, holder)
		if !gone && !bytes.Equal(got, f.data[at:at+n]) {
			r.Errorf("%d bytes at %#x of the file are not what was written", n, at)
		}
	}
}

func (r *tableRun) checkFault(addr uintptr, fault, want bool, holder *Reader) {
	r.Helper()
	if fault != want {
		r.Errorf("fault: %v, want %v", fault, want)
	}
	if fault && holder != nil && !holder.Holds(addr) {
		r.Errorf("the reader does not hold the address of the fault")
	}
}

// faults runs f and tells whether, and where, it met memory that is gone.
func faults(f func()) (addr uintptr, fault bool) {
	defer func() {
		if v := recover(); v != nil {
			if addr, fault = IsFault(v); !fault {
				panic(v)
			}
		}
	}()
	f()
	return 0, false
}

// logRange is a range to log or to report.
func (r *tableRun) logRange() Range {
	if r.Odds(16) {
		return Range{r.Uint64(), r.Edge(page)}
	}
	at := r.page() + choice.Pick[uint64](r.Source, 0, 0, 1, page-1)
	size := 1 + r.Edge(4*page)%(4*page)
	if !r.Odds(4) { // all that programs use
		size = slots / 2 * page
		if r.Bool() {
			at &^= slots/2*page - 1
		}
	}
	return Range{at, min(size-1, math.MaxUint64-at) + 1}
}

// bitmapWords is the least that a report needs.
func bitmapWords(g Range, pageSize uint64) int { return int(codec.BitmapBytes(g.Size, pageSize) / 8) }
