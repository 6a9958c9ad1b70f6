package dma

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"vfiouser/fuzz/choice"
)

var tableOperations = []struct {
	name string
	run  func(*tableRun)
}{
	{"Map", mapAny},
	{"Map", mapAny},
	{"Map", mapAny},
	{"Bytes", func(r *tableRun) { r.translate(false) }},
	{"Bytes", func(r *tableRun) { r.translate(false) }},
	{"Span", func(r *tableRun) { r.translate(true) }},
	{"Enter or Exit", func(r *tableRun) {
		if k := r.Intn(len(r.readers)); r.views[k].inside {
			r.exit(k)
		} else {
			r.enter(k)
		}
	}},
	{"Exit", func(r *tableRun) { r.exit(r.Intn(len(r.readers))) }},
	{"Unmap", func(r *tableRun) {
		iova, size := r.page(), uint64(page)
		if len(r.model.regions) > 0 && !r.Odds(8) {
			g := choice.Pick(r.Source, r.model.regions...)
			iova, size = g.IOVA, g.Size
			if r.Odds(8) { // not all of it, or more
				iova, size = iova+choice.Pick[uint64](r.Source, 0, page), size+choice.Pick[uint64](r.Source, page, math.MaxUint64-page+1, 1)
			}
		}
		w := r.model.unmapping(iova, size)
		known := w != nil
		if err := r.table.Unmap(iova, size, r.waits(&w)); known {
			r.agree(err, nil)
		} else if r.agree(err, ErrNotFound); w != nil {
			r.Error("done, and refused")
		}
	}},
	{"UnmapAll or Close", func(r *tableRun) {
		switch r.Intn(48) {
		case 1, 2, 3:
			w := r.model.unmappingAll(false)
			r.table.UnmapAll(r.waits(&w))
		case 15:
			w := r.model.unmappingAll(true)
			r.table.Close(r.waits(&w))
		}
	}},
	{"Seen", func(r *tableRun) {
		w := r.model.wait(&modelWait{})
		r.table.Seen(r.waits(&w))
	}},
	{"Lookup", func(r *tableRun) {
		iova, n := r.somewhere(r.model.regions)
		p := r.prot()
		want, err := translate(r.model.regions, iova, n, p)
		if err == ErrMessage { // it describes that as well
			want, err = find(r.model.regions, iova, n), nil
		}
		got, e := r.table.Lookup(iova, n, p)
		if r.agree(e, err); err == nil && (got.IOVA != want.IOVA || got.Size != want.Size) {
			r.Errorf("found %#x+%#x, want %#x+%#x", got.IOVA, got.Size, want.IOVA, want.Size)
		}
	}},
	{"Pin", pin},
	{"use of a pin", func(r *tableRun) {
		if len(r.pins) > 0 {
			p := choice.Pick(r.Source, r.pins...)
			use := ProtRead
			if p.write.Size > 0 {
				use = ProtWrite
			}
			r.touch(p.b, p.region.file, p.at, use, nil)
		}
	}},
	{"Release", func(r *tableRun) {
		if len(r.pins) > 0 {
			k := r.Intn(len(r.pins))
			p := r.pins[k]
			r.pins = slices.Delete(r.pins, k, k+1)
			p.region.pins--
			r.model.log.mark(p.write.IOVA, p.write.Size)
			p.Release()
		}
	}},
	{"truncation", func(r *tableRun) {
		f := choice.Pick(r.Source, r.files...)
		f.size = uint64(choice.Pick(r.Source, filePages, filePages, filePages, filePages, filePages, 0, filePages/2, filePages-1)) * page
		must(r.T, unix.Ftruncate(f.fd, int64(f.size)))
		clear(f.data[f.size:])
	}},
	{"StartLogging", func(r *tableRun) {
		var list []Range
		for range r.Intn(4) {
			list = append(list, r.logRange())
		}
		size := choice.Pick[uint64](r.Source, page, 1, 3*page, 16*page, 1<<40, 0)
		if r.model.log != nil && r.Bool() {
			size = r.model.log.page
		}
		want := r.model.start(size, list)
		var w *modelWait
		if want != 0 {
			w = r.model.waiting[len(r.model.waiting)-1]
		}
		switch got, err := r.table.StartLogging(size, list, r.waits(&w)); {
		case want == 0:
			r.agree(err, ErrInvalid)
		case err != nil || got != want:
			r.Errorf("pages of %d bytes, want %d; %v", got, want, err)
		}
	}},
	{"StopLogging", func(r *tableRun) {
		if r.Odds(3) {
			if r.model.log != nil {
				r.model.gen++
			}
			r.model.log = nil
			r.table.StopLogging()
		}
	}},
	{"ReportDirty", report},
	{"ReportDirty", report},
	{"MarkDirty", func(r *tableRun) {
		iova, n := r.somewhere(r.model.regions)
		if n %= 64 * page; r.Odds(4) {
			n = uint64(r.Intn(130)) * page
		}
		if l := r.model.log; l != nil && len(l.ranges) > 0 && r.Odds(3) { // up to the first byte of a range, or the one before
			first := choice.Pick(r.Source, l.ranges...).IOVA
			n = 1 + r.Edge(page)%page
			iova = first - n + uint64(r.Intn(2))
		}
		r.model.log.mark(iova, n)
		r.table.MarkDirty(iova, n)
	}},
	{"Wrote", func(r *tableRun) {
		reader, v := r.reader()
		iova, n := r.somewhere(v.regions)
		n %= 8 * page
		reader.Wrote(iova, n)
		v.wrote = append(v.wrote, Range{iova, n})
		if r.Odds(4) { // at both ends of the address space
			for _, w := range []Range{{math.MaxUint64 - page + 1, page}, {0, 1 + uint64(r.Intn(page))}} {
				reader.Wrote(w.IOVA, w.Size)
				v.wrote = append(v.wrote, w)
			}
		}
	}},
}

func mapAny(r *tableRun) {
	in := Mapping{IOVA: r.page(), Size: uint64(1+r.Intn(4)) * page, Prot: choice.Pick(r.Source, rw, rw, rw, rw, ProtRead, ProtWrite), FD: -1, Offset: uint64(r.Intn(filePages-3)) * page}
	f := choice.Pick(r.Source, r.files...)
	kind := choice.Pick(r.Source, memoryFD, memoryFD, memoryFD, memoryFD, memoryFD, noFD, readOnlyFD, deviceFD)
	switch r.Intn(24) {
	case 1:
		in.Size = 0
	case 2:
		in.Size = r.Uint64()
	case 3:
		in.IOVA++
	case 4:
		in.Offset = r.Uint64()
	case 5:
		in.Prot = Prot(r.Uint8())
	}
	switch kind {
	case memoryFD:
		in.FD = dup(r.T, f.fd)
	case readOnlyFD:
		f, in.FD = r.files[0], dup(r.T, r.readOnly)
	case deviceFD:
		in.FD = dup(r.T, r.device)
	case noFD:
		f = nil
	}
	r.refused = 0
	err := r.table.Map(in)
	r.agree(err, r.model.mapping(in, kind, f))
	if refused := err != nil && kind != noFD; refused != (r.refused == 1) {
		r.Errorf("%v, and %d descriptors were refused", err, r.refused)
	}
}

// translate accesses memory in a section.
func (r *tableRun) translate(span bool) {
	r.Helper()
	reader, v := r.reader()
	iova, n := r.somewhere(v.regions)
	p := r.prot()
	least, get := n, reader.Bytes
	if span {
		least, get = min(n, 1), reader.Span
	}
	region, want := translate(v.regions, iova, least, p)
	b, err := get(iova, n, p)
	if r.agree(err, want); want != nil || err != nil {
		return
	}
	off := iova - region.IOVA
	if n = min(n, region.Size-off); uint64(len(b)) != n {
		r.Errorf("%d bytes, want %d", len(b), n)
		return
	}
	if p&ProtWrite != 0 {
		v.wrote = append(v.wrote, Range{iova, n})
	}
	r.touch(b, region.file, region.Offset+off, p, reader)
}

func pin(r *tableRun) {
	reader, v := r.reader()
	iova, n := r.somewhere(v.regions)
	p := r.prot()
	region, want := translate(v.regions, iova, n, p)
	b, held, err := reader.Pin(iova, n, p)
	if r.agree(err, want); want != nil || err != nil {
		return
	}
	h := heldPin{Pin: held, b: b, region: region, at: region.Offset + iova - region.IOVA}
	if p&ProtWrite != 0 {
		h.write = Range{iova, n}
		v.wrote = append(v.wrote, h.write)
	}
	region.pins++
	r.pins = append(r.pins, h)
}

func report(r *tableRun) {
	g, size := r.logRange(), choice.Pick[uint64](r.Source, page, page, 1024, 4*page, 3)
	if g.Size == 0 || g.Size > 1<<20 {
		g.Size = page
	}
	if r.Odds(3) { // several words of bits
		g.Size = min(uint64(65+r.Intn(130))*page, math.MaxUint64-g.IOVA)
	}
	valid := size&(size-1) == 0 && g.Size-1 <= ^g.IOVA
	words := 1
	if valid {
		words = bitmapWords(g, size)
	}
	short := r.Odds(16) && valid
	if short {
		words--
	}
	got := make([]uint64, words)
	switch err := r.table.ReportDirty(g, size, got); {
	case r.model.log == nil:
		r.agree(err, ErrNotLogging)
	case !valid || short:
		r.agree(err, ErrInvalid)
	case err != nil:
		r.Error(err)
	default:
		if want := r.model.log.report(g, size, words); !slices.Equal(got, want) {
			r.Errorf("report of %#x+%#x in %d bytes: %x, want %x", g.IOVA, g.Size, size, got, want)
		}
	}
}
