package dma

import (
	"math/bits"
	"slices"
)

// chunkMax bounds what one change of the table copies: a chunk and the list of chunks.
const chunkMax = 256

// chunk is an immutable run of regions in address order, never empty.
type chunk struct {
	first   []uint64 // first[i] is regions[i].iova, packed for the search
	regions []*region
}

func newChunk(regions []*region) *chunk {
	c := &chunk{first: make([]uint64, len(regions)), regions: regions}
	for i, r := range regions {
		c.first[i] = r.iova
	}
	return c
}

// snapshot is an immutable table of regions.
type snapshot struct {
	gen    uint64 // grows with every publication, never 0
	count  int
	first  []uint64 // first[i] is the first address of chunks[i]
	chunks []*chunk
	log    *dirtyLog // nil: nothing is logged
}

// below gives the index of the last element of sorted s that is <= v, or -1. It has no
// jump that depends on the outcome of a step: that is a coin toss, and a jump
// predicted wrongly costs more than the step.
func below(s []uint64, v uint64) int {
	base, n := 0, len(s)
	for n > 0 {
		half := (n + 1) >> 1
		_, less := bits.Sub64(v, s[base+half-1], 0) // 1 if v is less
		base += half & (int(less) - 1)
		n -= half
	}
	return base - 1
}

// find gives the region with the highest address <= iova, if any.
func (s *snapshot) find(iova uint64) *region {
	i := below(s.first, iova)
	if i < 0 {
		return nil
	}
	c := s.chunks[i]
	return c.regions[below(c.first, iova)]
}

// locate translates a range.
func (s *snapshot) locate(iova, n uint64) *region {
	if r := s.find(iova); r != nil && r.holds(iova, n) {
		return r
	}
	return nil
}

// overlaps tells whether [iova, last] touches a region: only the one with the
// highest start <= last can.
func (s *snapshot) overlaps(iova, last uint64) bool {
	r := s.find(last)
	return r != nil && r.last() >= iova
}

func (s *snapshot) each(f func(*region)) {
	for _, c := range s.chunks {
		for _, r := range c.regions {
			f(r)
		}
	}
}

// replace gives a copy of s in which the chunks [i, j) are replaced.
func (s *snapshot) replace(i, j, count int, by ...*chunk) *snapshot {
	n := &snapshot{gen: s.gen + 1, count: count, log: s.log}
	n.chunks = slices.Concat(s.chunks[:i], by, s.chunks[j:])
	n.first = make([]uint64, len(n.chunks))
	copy(n.first, s.first[:i])
	for k, c := range by {
		n.first[i+k] = c.first[0]
	}
	copy(n.first[i+len(by):], s.first[j:])
	return n
}

// insert gives a snapshot with r, which overlaps nothing in s.
func (s *snapshot) insert(r *region) *snapshot {
	if len(s.chunks) == 0 {
		return s.replace(0, 0, 1, newChunk([]*region{r}))
	}
	i := max(below(s.first, r.iova), 0)
	old := s.chunks[i].regions
	at := below(s.chunks[i].first, r.iova) + 1
	if len(old) < chunkMax {
		return s.replace(i, i+1, s.count+1, newChunk(slices.Concat(old[:at], []*region{r}, old[at:])))
	}
	// Addresses that only grow, the usual order, leave full chunks behind. Elsewhere each half has
	// to be worth a chunk, or a gap that is filled downwards would make one of every region.
	cut := chunkMax / 2
	if at == len(old) && i == len(s.chunks)-1 {
		cut = at
	}
	lo, hi := old[:cut], old[cut:]
	if at <= cut && cut < len(old) {
		lo = slices.Concat(lo[:at], []*region{r}, lo[at:])
	} else {
		hi = slices.Concat(hi[:at-cut], []*region{r}, hi[at-cut:])
	}
	return s.replace(i, i+1, s.count+1, newChunk(lo), newChunk(hi))
}

// remove gives a snapshot without r, which is in s.
func (s *snapshot) remove(r *region) *snapshot {
	i := below(s.first, r.iova)
	old := s.chunks[i].regions
	at := below(s.chunks[i].first, r.iova)
	rest := slices.Concat(old[:at], old[at+1:])
	lo, hi := i, i+1
	// A neighbour takes the rest if both are small, so that the list of chunks stays
	// in proportion to the regions whatever the order of removals.
	if i > 0 && len(rest)+len(s.chunks[i-1].regions) <= chunkMax/2 {
		lo, rest = i-1, slices.Concat(s.chunks[i-1].regions, rest)
	} else if i+1 < len(s.chunks) && len(rest)+len(s.chunks[i+1].regions) <= chunkMax/2 {
		hi, rest = i+2, slices.Concat(rest, s.chunks[i+1].regions)
	}
	if len(rest) == 0 {
		return s.replace(lo, hi, s.count-1)
	}
	return s.replace(lo, hi, s.count-1, newChunk(rest))
}
