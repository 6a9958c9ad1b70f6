package dma

import (
	"cmp"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// tableModel is a table as a plain list, with what waits and what was written.
type tableModel struct {
	regions []*modelRegion // in address order
	gen     uint64
	closed  bool
	maxMaps int
	waiting []*modelWait // that are not done, oldest first
	log     *modelLog    // nil: off

	mmaps    map[modelKey][]*modelMmap
	count    int // of them
	bytes    uint64
	maxMmaps int
	maxBytes uint64
}

type modelRegion struct {
	Mapping             // FD is not used
	file     *modelFile // nil: by message only
	pins     int
	mmap     *modelMmap // nil: none, or released
	released bool
}

// modelKey says which regions share their mmaps.
type modelKey struct {
	file *modelFile
	prot Prot
}

// modelMmap is a part of a file, in bytes, that is mapped.
type modelMmap struct {
	modelKey
	from, to uint64
	regions  int
}

func (r *modelRegion) last() uint64 { return r.IOVA + (r.Size - 1) }

// modelFile is a client's memory.
type modelFile struct {
	fd   int
	size uint64 // bytes that it has now
	data []byte // what they are; behind the size all is zero
}

// modelWait is something that is done when sections and pins have ended.
type modelWait struct {
	gen     uint64
	regions []*modelRegion
	all     bool // and after what is older
	done    bool // as the table says
}

// modelView is what a section sees.
type modelView struct {
	inside  bool
	gen     uint64
	regions []*modelRegion
	log     *modelLog
	wrote   []Range
}

func find(regions []*modelRegion, iova, n uint64) *modelRegion {
	for _, r := range regions {
		if iova >= r.IOVA && iova <= r.last() && n <= r.Size-(iova-r.IOVA) {
			return r
		}
	}
	return nil
}

// translate says what an access gives, and in which region it lies.
func translate(regions []*modelRegion, iova, n uint64, p Prot) (*modelRegion, error) {
	r := find(regions, iova, n)
	switch {
	case r == nil:
		return nil, ErrNotMapped
	case r.Prot&p != p:
		return nil, ErrProt
	case r.file == nil:
		return nil, ErrMessage
	}
	return r, nil
}

// kindOfFD is what a client passes as a region's descriptor.
type kindOfFD int

const (
	noFD kindOfFD = iota
	memoryFD
	readOnlyFD
	deviceFD // not a file
)

// mapping says what comes of Map, and adds the region.
func (m *tableModel) mapping(in Mapping, kind kindOfFD, f *modelFile) error {
	aligned := (in.IOVA|in.Size)%page == 0 && (kind == noFD || in.Offset%page == 0)
	switch {
	case in.Size == 0, in.Size-1 > math.MaxUint64-in.IOVA, !aligned, in.Prot == 0, in.Prot > rw:
		return ErrInvalid
	case m.closed:
		return ErrClosed
	}
	for _, r := range m.regions {
		if in.IOVA <= r.last() && r.IOVA <= in.IOVA+(in.Size-1) {
			return ErrExists
		}
	}
	switch {
	case len(m.regions) >= m.maxMaps:
		return ErrTooMany
	case kind == deviceFD:
		return ErrInvalid
	case kind == readOnlyFD && in.Prot&ProtWrite != 0:
		return unix.EACCES
	case kind != noFD && (in.Offset > f.size || in.Size > f.size-in.Offset):
		return ErrInvalid
	}
	r := &modelRegion{Mapping: in, file: f}
	if f != nil {
		if r.mmap = m.mmap(modelKey{f, in.Prot}, in.Offset, in.Size); r.mmap == nil {
			return ErrTooMany
		}
		r.mmap.regions++
	}
	m.regions = append(slices.Clone(m.regions), r)
	slices.SortFunc(m.regions, func(a, b *modelRegion) int { return cmp.Compare(a.IOVA, b.IOVA) })
	m.gen++
	return nil
}

// mmap finds a part of a file that is mapped already, or maps all of the file, or that part alone;
// nil if there is no room.
func (m *tableModel) mmap(k modelKey, from, n uint64) *modelMmap {
	for _, mm := range m.mmaps[k] {
		if mm.from <= from && from+n <= mm.to {
			return mm
		}
	}
	for _, mm := range []*modelMmap{{modelKey: k, to: k.file.size}, {modelKey: k, from: from, to: from + n}} {
		if m.count < m.maxMmaps && m.bytes+(mm.to-mm.from) <= m.maxBytes {
			m.mmaps[k] = append(m.mmaps[k], mm)
			m.count, m.bytes = m.count+1, m.bytes+(mm.to-mm.from)
			return mm
		}
	}
	return nil
}

// release lets go of the memory of a region, of which nobody has a use any more.
func (m *tableModel) release(r *modelRegion) {
	if r.released = true; r.mmap == nil {
		return
	}
	mm := r.mmap
	r.mmap = nil
	if mm.regions--; mm.regions > 0 {
		return
	}
	list := m.mmaps[mm.modelKey]
	last := len(list) - 1
	list[slices.Index(list, mm)] = list[last]
	m.mmaps[mm.modelKey] = list[:last]
	m.count, m.bytes = m.count-1, m.bytes-(mm.to-mm.from)
}

// unmapping removes a region; nil if there is none such.
func (m *tableModel) unmapping(iova, size uint64) *modelWait {
	i := slices.IndexFunc(m.regions, func(r *modelRegion) bool { return r.IOVA == iova && r.Size == size })
	if i < 0 {
		return nil
	}
	gone := m.regions[i]
	m.regions = slices.Delete(slices.Clone(m.regions), i, i+1)
	m.gen++
	return m.wait(&modelWait{regions: []*modelRegion{gone}})
}

func (m *tableModel) unmappingAll(closing bool) *modelWait {
	m.closed = m.closed || closing
	gone := m.regions
	m.regions = nil
	m.gen++
	return m.wait(&modelWait{regions: gone, all: true})
}

func (m *tableModel) wait(w *modelWait) *modelWait {
	w.gen = m.gen
	m.waiting = append(m.waiting, w)
	return w
}

// settle removes what has to be done by now, and gives it.
func (m *tableModel) settle(views []*modelView) (done []*modelWait) {
	rest := m.waiting[:0]
	for _, w := range m.waiting {
		seen, held := false, w.all && len(rest) > 0
		for _, v := range views {
			seen = seen || v.inside && v.gen < w.gen
		}
		for _, r := range w.regions {
			if !r.released && !seen && r.pins == 0 {
				m.release(r)
			}
			held = held || !r.released
		}
		if held || seen {
			rest = append(rest, w)
		} else {
			done = append(done, w)
		}
	}
	m.waiting = rest
	return done
}

// modelLog is which pages were written. Logs that follow one another without a stop share them.
type modelLog struct {
	page   uint64
	ranges []Range // nil: all
	pages  map[uint64]bool
}

// start begins to log, or adds ranges; 0 is a refusal.
func (m *tableModel) start(pageSize uint64, ranges []Range) uint64 {
	for _, r := range ranges {
		if r.Size == 0 || r.Size-1 > math.MaxUint64-r.IOVA {
			return 0
		}
	}
	l := &modelLog{page: page, ranges: ranges, pages: map[uint64]bool{}}
	for l.page*2 <= pageSize && l.page < 1<<30 {
		l.page *= 2
	}
	if o := m.log; o != nil {
		if pageSize != o.page {
			return 0
		}
		l = &modelLog{page: o.page, pages: o.pages}
		if o.ranges != nil && ranges != nil {
			l.ranges = append(slices.Clone(o.ranges), ranges...)
		}
	}
	if pageSize == 0 {
		return 0
	}
	m.log = l
	m.gen++
	m.wait(&modelWait{})
	return l.page
}

// mark records a write; one that goes on behind the last address ends there.
func (l *modelLog) mark(iova, n uint64) {
	if l == nil || n == 0 {
		return
	}
	last := iova + min(n-1, math.MaxUint64-iova)
	ranges := l.ranges
	if ranges == nil {
		ranges = []Range{{0, 0}}
	}
	for _, r := range ranges {
		from, to := max(iova, r.IOVA), min(last, r.IOVA+(r.Size-1))
		if from > to {
			continue
		}
		for p := from / l.page; p <= to/l.page; p++ {
			l.pages[p] = true
		}
	}
}

// report is the bitmap of a range. Pages that lie in it as a whole are clean afterwards.
func (l *modelLog) report(r Range, pageSize uint64, words int) []uint64 {
	bitmap := make([]uint64, words)
	end := r.IOVA + (r.Size - 1)
	for p := range l.pages {
		first := p * l.page
		last := first + (l.page - 1)
		from, to := max(first, r.IOVA), min(last, end)
		if from > to {
			continue
		}
		for bit := (from - r.IOVA) / pageSize; bit <= (to-r.IOVA)/pageSize; bit++ {
			bitmap[bit/64] |= 1 << (bit % 64)
		}
		if from == first && to == last {
			delete(l.pages, p)
		}
	}
	return bitmap
}
