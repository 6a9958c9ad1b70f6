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
}

type modelRegion struct {
	Mapping            // FD is not used
	file    *modelFile // nil: by message only
	pins    int
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
	m.regions = append(slices.Clone(m.regions), &modelRegion{Mapping: in, file: f})
	slices.SortFunc(m.regions, func(a, b *modelRegion) int { return cmp.Compare(a.IOVA, b.IOVA) })
	m.gen++
	return nil
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
		held := w.all && len(rest) > 0
		for _, v := range views {
			held = held || v.inside && v.gen < w.gen
		}
		for _, r := range w.regions {
			held = held || r.pins > 0
		}
		if held {
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
