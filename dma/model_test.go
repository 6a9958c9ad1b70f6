package dma

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// model is the table as a plain list, for comparison.
type model []Mapping

func (m model) overlaps(iova, size uint64) bool {
	return slices.ContainsFunc(m, func(r Mapping) bool {
		return iova <= r.IOVA+(r.Size-1) && r.IOVA <= iova+(size-1)
	})
}

func (m model) translate(iova, n uint64, p Prot) error {
	for _, r := range m {
		if iova < r.IOVA || iova-r.IOVA >= r.Size || n > r.Size-(iova-r.IOVA) {
			continue
		}
		switch {
		case r.Prot&p != p:
			return ErrProt
		case r.FD < 0:
			return ErrMessage
		}
		return nil
	}
	return ErrNotMapped
}

// play runs operations encoded in data against a table and the model. Each takes
// four bytes: what, where, how long, how.
func play(t *testing.T, data []byte) {
	tab := newTable(t, Config{MaxMaps: 600})
	file := newFile(t, 256*page)
	r := newReader(t, tab)
	var m model
	for ; len(data) >= 4; data = data[4:] {
		iova, size, p := uint64(data[1])*page, uint64(data[2]%8+1)*page, Prot(data[3]&3)
		if data[3]&4 != 0 {
			iova += math.MaxUint64 - 255*page - page + 1 // the top of the address space
		}
		switch data[0] % 8 {
		case 0, 1, 2, 3:
			want := Mapping{IOVA: iova, Size: size, Prot: p, FD: -1, Offset: uint64(data[3]>>4) * page}
			ok := p != 0 && size-1 <= math.MaxUint64-iova && !m.overlaps(iova, size)
			in := want
			if data[0]&8 != 0 {
				in.FD = dup(t, file)
				want.FD = 0
			}
			if err := tab.Map(in); (err == nil) != ok {
				t.Fatalf("Map(%+v): %v, model says %v", in, err, ok)
			}
			if ok {
				m = append(m, want)
			}
		case 4, 5:
			i := slices.IndexFunc(m, func(x Mapping) bool { return x.IOVA == iova })
			if data[0]&8 != 0 && len(m) > 0 {
				i = int(data[1]) % len(m)
			}
			if i >= 0 {
				iova, size = m[i].IOVA, m[i].Size
				m = slices.Delete(m, i, i+1)
			}
			if err := tab.Unmap(iova, size, nil); (err == nil) != (i >= 0) {
				t.Fatalf("Unmap(%#x, %#x): %v", iova, size, err)
			}
		case 6:
			if data[0] == 0xfe {
				tab.UnmapAll(nil)
				m = nil
			}
		}
		r.Enter()
		for d := range uint64(4) {
			at, n := iova+d*page*3-100, d*size
			want := m.translate(at, n, p)
			b, err := r.Bytes(at, n, p)
			if err != want || err == nil && uint64(len(b)) != n {
				t.Fatalf("Bytes(%#x, %#x, %d): %d bytes, %v, model says %v", at, n, p, len(b), err, want)
			}
		}
		r.Exit()
	}
	want := slices.SortedFunc(slices.Values(m), func(a, b Mapping) int {
		if a.IOVA < b.IOVA {
			return -1
		}
		return 1
	})
	got := tab.Regions()
	if len(got) != len(want) {
		t.Fatalf("%d regions, model has %d", len(got), len(want))
	}
	for i := range got {
		if got[i].IOVA != want[i].IOVA || got[i].Size != want[i].Size || got[i].Prot != want[i].Prot {
			t.Fatalf("region %d: %+v, model has %+v", i, got[i], want[i])
		}
	}
	checkShape(t, tab.snap.Load())
}

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

func TestRandomOperationsAgainstModel(t *testing.T) {
	checkFDs(t)
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 4*400)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		play(t, data)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{8, 1, 1, 3, 8, 3, 0, 3, 4, 1, 1, 3})
	f.Add([]byte{0, 255, 0, 7, 8, 250, 7, 6, 0xfe, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) { play(t, data[:min(len(data), 4000)]) })
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

func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
