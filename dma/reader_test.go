package dma

import (
	"math"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTranslation(t *testing.T) {
	checkFDs(t)
	file := newFile(t, 4*page)
	for i := range uint64(4) {
		_, err := unix.Pwrite(file, []byte{byte('a' + i)}, int64(i*page))
		must(t, err)
	}
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{IOVA: 4 * page, Size: 2 * page, Offset: page, Prot: rw, FD: dup(t, file)}))
	must(t, tab.Map(Mapping{IOVA: 6 * page, Size: page, Prot: ProtRead, FD: dup(t, file)}))
	must(t, tab.Map(Mapping{IOVA: 8 * page, Size: page, Prot: rw, FD: -1}))
	must(t, tab.Map(Mapping{IOVA: math.MaxUint64 - page + 1, Size: page, Offset: 3 * page, Prot: ProtWrite, FD: dup(t, file)}))

	for _, tc := range []struct {
		name    string
		iova, n uint64
		p       Prot
		first   byte
		err     error
	}{
		{"first byte", 4 * page, 1, ProtRead, 'b', nil},
		{"whole region", 4 * page, 2 * page, rw, 'b', nil},
		{"second page", 5 * page, page, ProtRead, 'c', nil},
		{"last byte", 6*page - 1, 1, ProtWrite, 0, nil},
		{"no bytes", 5 * page, 0, ProtRead, 0, nil},
		{"no bytes at the end", 7 * page, 0, ProtRead, 0, ErrNotMapped},
		{"any protection", 5 * page, 1, 0, 'c', nil},
		{"below", 4*page - 1, 1, ProtRead, 0, ErrNotMapped},
		{"into the region", 4*page - 1, 2, ProtRead, 0, ErrNotMapped},
		{"out of the region", 6*page - 1, 2, ProtRead, 0, ErrNotMapped},
		{"gap", 7 * page, 1, ProtRead, 0, ErrNotMapped},
		{"length overflows", 4 * page, math.MaxUint64, ProtRead, 0, ErrNotMapped},
		{"end wraps into the region", 5 * page, math.MaxUint64 - page + 1, ProtRead, 0, ErrNotMapped},
		{"read-only", 6 * page, page, ProtRead, 'a', nil},
		{"write to read-only", 6 * page, page, ProtWrite, 0, ErrProt},
		{"by message", 8 * page, page, ProtRead, 0, ErrMessage},
		{"out of message region", 8 * page, page + 1, ProtRead, 0, ErrNotMapped},
		{"top of the address space", math.MaxUint64 - page + 1, page, ProtWrite, 'd', nil},
		{"last address", math.MaxUint64, 1, ProtWrite, 0, nil},
		{"over the top", math.MaxUint64, 2, ProtWrite, 0, ErrNotMapped},
		{"read of write-only", math.MaxUint64, 1, ProtRead, 0, ErrProt},
		{"zero", 0, 1, ProtRead, 0, ErrNotMapped},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newReader(t, tab)
			r.Enter()
			defer r.Exit()
			for _, before := range []uint64{4 * page, 6 * page, math.MaxUint64, 0} { // the last hit
				_, _ = r.Bytes(before, 1, 0)
				b, err := r.Bytes(tc.iova, tc.n, tc.p)
				if err != tc.err {
					t.Fatalf("after %#x: %v, want %v", before, err, tc.err)
				}
				if err != nil {
					continue
				}
				if uint64(len(b)) != tc.n || uint64(cap(b)) != tc.n || tc.n > 0 && b[0] != tc.first {
					t.Fatalf("after %#x: %d bytes, capacity %d", before, len(b), cap(b))
				}
			}
		})
	}
}

func TestSpanStopsAtTheEndOfTheRegion(t *testing.T) {
	tab := newTable(t, Config{})
	file := newFile(t, 3*page)
	must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: dup(t, file)}))
	must(t, tab.Map(Mapping{IOVA: 2 * page, Size: 2 * page, Offset: page, Prot: rw, FD: dup(t, file)}))
	must(t, tab.Map(Mapping{IOVA: 4 * page, Size: page, Prot: rw, FD: -1}))
	r := newReader(t, tab)
	r.Enter()
	defer r.Exit()
	for _, tc := range []struct {
		iova, n, want uint64
		err           error
	}{
		{page, 10 * page, page, nil},
		{page + 100, page, page - 100, nil},
		{2 * page, 10 * page, 2 * page, nil},
		{2 * page, 5, 5, nil},
		{4*page - 1, math.MaxUint64, 1, nil},
		{4 * page, 1, 0, ErrMessage},
		{5 * page, 1, 0, ErrNotMapped},
	} {
		b, err := r.Span(tc.iova, tc.n, ProtRead)
		if err != tc.err || uint64(len(b)) != tc.want {
			t.Errorf("Span(%#x, %#x): %d bytes, %v", tc.iova, tc.n, len(b), err)
		}
	}
}

func TestGenerationChangesWithTheTable(t *testing.T) {
	tab := newTable(t, Config{})
	r := newReader(t, tab)
	seen := map[uint64]bool{}
	enter := func() uint64 {
		r.Enter()
		defer r.Exit()
		return r.Generation()
	}
	for i := range uint64(3) {
		must(t, tab.Map(Mapping{IOVA: i * page, Size: page, Prot: rw, FD: -1}))
		g := enter()
		if seen[g] || g != enter() || g != tab.Generation() {
			t.Fatalf("generation %d", g)
		}
		seen[g] = true
	}
	must(t, tab.Unmap(0, page, nil))
	if seen[enter()] {
		t.Error("same generation after Unmap")
	}
}

// A section keeps what it saw; the next one sees the change.
func TestSectionSeesOneTable(t *testing.T) {
	tab := newTable(t, Config{})
	file := newFile(t, 2*page)
	must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: dup(t, file)}))
	r := newReader(t, tab)
	r.Enter()
	must(t, tab.Unmap(page, page, nil))
	must(t, tab.Map(Mapping{IOVA: 2 * page, Size: page, Prot: rw, FD: dup(t, file)}))
	b, err := r.Bytes(page, page, rw)
	must(t, err)
	b[0] = 1 // still there
	if _, err := r.Bytes(2*page, 1, ProtRead); err != ErrNotMapped {
		t.Errorf("region mapped later: %v", err)
	}
	r.Exit()
	r.Exit()
	r.Enter()
	defer r.Exit()
	if _, err := r.Bytes(page, 1, ProtRead); err != ErrNotMapped {
		t.Errorf("unmapped region: %v", err)
	}
	_, err = r.Bytes(2*page, 1, ProtRead)
	must(t, err)
}

func TestTranslationDoesNotAllocate(t *testing.T) {
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: ProtRead, FD: dup(t, newFile(t, page))}))
	must(t, tab.Map(Mapping{IOVA: 4 * page, Size: page, Prot: rw, FD: -1}))
	r := newReader(t, tab)
	var entry [64]byte
	n := testing.AllocsPerRun(1000, func() {
		r.Enter()
		b, _ := r.Bytes(page, 64, ProtRead)
		CopyIn64(&entry, b)
		_, _ = r.Bytes(0, 1, ProtRead)
		_, _ = r.Bytes(page, 1, ProtWrite)
		_, _ = r.Bytes(4*page, 1, ProtRead)
		_, _ = r.Span(page, 2*page, ProtRead)
		_, pin, _ := r.Pin(page, 1, ProtRead)
		r.Exit()
		pin.Release()
		_, _ = tab.Lookup(page, 1, ProtRead)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
