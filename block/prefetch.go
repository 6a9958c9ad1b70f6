//go:build amd64 || arm64

package block

// Prefetcher is a Backend whose storage is memory that the processor can fetch in advance.
type Prefetcher interface {
	// Prefetch is a hint that a request for what begins at off comes next: a write, or a
	// read. It costs a few nanoseconds and does not wait. What is out of range is ignored.
	Prefetch(off int64, write bool)
}

// prefetchRead and prefetchWrite fetch four cache lines: then the translation of the
// address is there, and the processor follows by itself. More are slower: 4 KiB copied
// from 1 GiB at random took 480 ns without, 340 ns with 4, 475 ns with 32.
//
//go:noescape
func prefetchRead(p *byte)

//go:noescape
func prefetchWrite(p *byte)

// Prefetch makes it a Prefetcher.
func (m *memory) Prefetch(off int64, write bool) {
	if uint64(off) >= uint64(len(m.data)) {
		return
	}
	if write {
		prefetchWrite(&m.data[off])
	} else {
		prefetchRead(&m.data[off])
	}
}
