package dma

import (
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzSnapshot: a table of hundreds of regions, the largest and the smallest addresses among them,
// changes and is searched as a plain list would be, and its chunks stay filled.
//
//fuzz:covers dma/snapshot.go dma/region.go
func FuzzSnapshot(f *testing.F) {
	bases := manyRegions(0, 200, chunkMax-1, chunkMax, chunkMax+1, 3*chunkMax)
	choice.Fuzz(f, 150, 120, func(t *testing.T, s *choice.Source) {
		r := &snapshotRun{T: t, Source: s, snapshotBase: choice.Pick(s, bases...)}
		r.regions = slices.Clone(r.regions)
		for step := 0; s.More() && !t.Failed(); step++ {
			switch s.Intn(4) {
			case 0:
				r.insert()
			case 1:
				r.remove()
			default:
				r.search()
			}
			checkShape(t, r.now)
			checkFilled(t, r.now)
			if t.Failed() {
				t.Errorf("step %d, %d regions", step, len(r.regions))
			}
		}
	})
}

const (
	snapshotSlots  = 4096
	snapshotStride = 4 * page // of addresses, the upper half of them at the top of all
)

// snapshotBase is a snapshot with its regions in address order.
type snapshotBase struct {
	now     *snapshot
	regions []*region
}

type snapshotRun struct {
	*testing.T
	*choice.Source
	snapshotBase
}

func slotAddress(slot int) uint64 {
	if slot >= snapshotSlots/2 {
		return -uint64(snapshotSlots-slot) * snapshotStride
	}
	return uint64(slot) * snapshotStride
}

// manyRegions are snapshots of so many regions, of each number one that has grown upwards and one
// that has grown downwards.
func manyRegions(counts ...int) (bases []snapshotBase) {
	for _, n := range counts {
		up, down := snapshotBase{now: &snapshot{gen: 1}}, snapshotBase{now: &snapshot{gen: 1}}
		for i := range n {
			up.regions = append(up.regions, &region{iova: slotAddress(2 * i), size: page})
			up.now = up.now.insert(up.regions[i])
			down.now = down.now.insert(&region{iova: slotAddress(2 * (n - i)), size: page})
		}
		down.now.each(func(r *region) { down.regions = append(down.regions, r) })
		bases = append(bases, up, down)
	}
	return bases
}

// place is where a region that begins at an address is, or would be.
func (r *snapshotRun) place(iova uint64) (i int, found bool) {
	return slices.BinarySearchFunc(r.regions, iova, func(g *region, iova uint64) int {
		switch {
		case g.iova < iova:
			return -1
		case g.iova > iova:
			return 1
		}
		return 0
	})
}

// insert adds some regions next to one another, upwards or downwards.
func (r *snapshotRun) insert() {
	slot, step := r.Intn(snapshotSlots), choice.Pick(r.Source, 1, -1, 2, -7)
	if len(r.regions) > 0 && r.Bool() { // among those that there are
		slot = int(choice.Pick(r.Source, r.regions...).iova / snapshotStride % snapshotSlots)
	}
	size := uint64(1+r.Intn(4)) * page
	for range 1 + r.Intn(24) {
		slot = (slot + step + snapshotSlots) % snapshotSlots
		g := &region{iova: slotAddress(slot), size: size}
		i, found := r.place(g.iova)
		if got := r.now.overlaps(g.iova, g.last()); got != found {
			r.Errorf("%#x+%#x overlaps: %v", g.iova, g.size, got)
		}
		if !found {
			r.now, r.regions = r.now.insert(g), slices.Insert(r.regions, i, g)
		}
	}
}

// remove removes some regions next to one another.
func (r *snapshotRun) remove() {
	if len(r.regions) == 0 {
		return
	}
	i := r.Intn(len(r.regions))
	for range min(1+r.Intn(24), len(r.regions)-i) {
		r.now, r.regions = r.now.remove(r.regions[i]), slices.Delete(r.regions, i, i+1)
	}
}

// search looks for a range, mostly one at the edge of a region.
func (r *snapshotRun) search() {
	iova, n := slotAddress(r.Intn(snapshotSlots))+r.Edge(snapshotStride), uint64(r.Intn(3))
	if r.Bool() {
		n = r.Edge(snapshotStride)
	}
	if len(r.regions) > 0 && !r.Odds(4) {
		g := choice.Pick(r.Source, r.regions...)
		iova = g.iova + r.Edge(g.size)
	}
	var want *region
	for _, g := range r.regions {
		if iova >= g.iova && iova-g.iova < g.size && n <= g.size-(iova-g.iova) {
			want = g
		}
	}
	if got := r.now.locate(iova, n); got != want {
		r.Errorf("found %+v at %#x+%#x, want %+v", got, iova, n, want)
	}
	if got := r.now.count; got != len(r.regions) {
		r.Errorf("%d regions, want %d", got, len(r.regions))
	}
}

// checkFilled: two chunks that are neighbours would not fit in half of one, so that there are not
// many of them.
func checkFilled(t *testing.T, s *snapshot) {
	t.Helper()
	for i := 1; i < len(s.chunks); i++ {
		if n := len(s.chunks[i-1].regions) + len(s.chunks[i].regions); n <= chunkMax/2 {
			t.Errorf("chunks %d and %d of %d have %d regions in all", i-1, i, len(s.chunks), n)
		}
	}
}
