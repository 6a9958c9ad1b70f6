package dma

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// checkShape verifies what the search relies on.
func checkShape(t *testing.T, s *snapshot) {
	t.Helper()
	count, next := 0, uint64(0)
	for i, c := range s.chunks {
		if len(c.regions) == 0 || len(c.regions) > chunkMax || len(c.first) != len(c.regions) || s.first[i] != c.first[0] {
			t.Fatalf("chunk %d is malformed", i)
		}
		for k, r := range c.regions {
			if c.first[k] != r.iova || count > 0 && r.iova < next {
				t.Fatalf("region %d of chunk %d is out of place", k, i)
			}
			next = r.last()
			count++
		}
	}
	if count != s.count || len(s.first) != len(s.chunks) {
		t.Fatalf("%d regions in %d chunks, count says %d", count, len(s.chunks), s.count)
	}
}

// TestFullTable: the largest table that a client may build, in every order, found again
// in every place.
func TestFullTable(t *testing.T) {
	checkFDs(t)
	n := 65535
	if invariants {
		n = 6000 // the race detector makes each change ten times as dear
	}
	for name, order := range map[string]func() []int{
		"ascending":  func() []int { return upTo(n) },
		"descending": func() []int { s := upTo(n); slices.Reverse(s); return s },
		"random":     func() []int { return rand.New(rand.NewPCG(1, 2)).Perm(n) },
	} {
		t.Run(name, func(t *testing.T) {
			tab := newTable(t, Config{MaxMaps: n})
			file := newFile(t, int64(n)*page)
			for k, i := range order() {
				m := Mapping{IOVA: uint64(i) * 2 * page, Size: page, Offset: uint64(i) * page, Prot: rw, FD: -1}
				if k%16 == 0 {
					m.FD = dup(t, file)
				}
				must(t, tab.Map(m))
			}
			wantErr(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: -1}), ErrTooMany, ErrTooMany.Errno)
			checkShape(t, tab.snap.Load())
			if s := tab.Stats(); s.Regions != n || s.Mmaps != 1 {
				t.Fatalf("%+v", s)
			}
			r := newReader(t, tab)
			r.Enter()
			for i := range uint64(n) {
				if _, err := r.Bytes(i*2*page, page, rw); err != nil && err != ErrMessage {
					t.Fatalf("region %d: %v", i, err)
				}
				if _, err := r.Bytes(i*2*page+page, 1, 0); err != ErrNotMapped {
					t.Fatalf("gap %d: %v", i, err)
				}
			}
			r.Exit()
			var unmapped sync.WaitGroup
			unmapped.Add(n)
			for _, i := range order() {
				must(t, tab.Unmap(uint64(i)*2*page, page, unmapped.Done))
			}
			unmapped.Wait()
			if s := tab.Stats(); s != (Stats{Readers: 1}) {
				t.Fatalf("%+v", s)
			}
		})
	}
}

// Removals leave small chunks; they are merged, so that the list stays short.
func TestChunksStayFilled(t *testing.T) {
	tab := newTable(t, Config{})
	const n = 20 * chunkMax
	for i := range uint64(n) {
		must(t, tab.Map(Mapping{IOVA: i * page, Size: page, Prot: rw, FD: -1}))
	}
	if got := len(tab.snap.Load().chunks); got != n/chunkMax {
		t.Errorf("%d chunks after growing upwards", got)
	}
	for i := range uint64(n) {
		if i%64 != 0 {
			must(t, tab.Unmap(i*page, page, nil))
		}
	}
	s := tab.snap.Load()
	checkShape(t, s)
	if limit := 4 * s.count / chunkMax; len(s.chunks) > limit {
		t.Errorf("%d chunks for %d regions", len(s.chunks), s.count)
	}
}

// A gap behind a full chunk that is filled downwards makes no chunk of each region.
func TestChunksInAGapAreFilled(t *testing.T) {
	tab := newTable(t, Config{})
	const n = 20 * chunkMax
	for i := range uint64(chunkMax) {
		must(t, tab.Map(Mapping{IOVA: i * page, Size: page, Prot: rw, FD: -1}))
	}
	must(t, tab.Map(Mapping{IOVA: 2 * n * page, Size: page, Prot: rw, FD: -1}))
	for i := range uint64(n) {
		must(t, tab.Map(Mapping{IOVA: (2*n - 1 - i) * page, Size: page, Prot: rw, FD: -1}))
	}
	s := tab.snap.Load()
	checkShape(t, s)
	if limit := 4 * s.count / chunkMax; len(s.chunks) > limit {
		t.Errorf("%d chunks for %d regions", len(s.chunks), s.count)
	}
}

func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
