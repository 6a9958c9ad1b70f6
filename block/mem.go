package block

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a transparent huge page, in bytes, on amd64 and on
// arm64 with 4 KiB pages. Where it differs only speed does.
const hugePage = 2 << 20

const (
	// maxInlineZero is how many bytes are zeroed in the caller's goroutine: up
	// to 50 µs, or 1 ms where the kernel gave small pages.
	maxInlineZero = 16 << 20
	// maxPortion is how many bytes one system call gives back.
	maxPortion = 64 << 20
)

// memory keeps its bytes in private anonymous memory, populated when first
// written.
type memory struct {
	data   []byte // begins on a huge page
	crew   *crew  // zeroes large ranges
	closed atomic.Bool
	once   sync.Once
}

// Memory returns a backend that keeps size bytes in memory. Pages cost
// nothing until they are written and are given back when discarded.
func Memory(size int64) (Backend, error) {
	if err := checkSize(size); err != nil {
		return nil, &OpenError{Spec: "mem", Err: err}
	}
	data, unmap, err := mapAnonymous(size)
	if err != nil {
		return nil, &OpenError{Spec: "mem", Err: because(err, "cannot reserve %d bytes of memory: %v", size, err)}
	}
	// Both are for speed and for readable core dumps; kernels without them
	// serve as well.
	_ = unix.Madvise(data, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(data, unix.MADV_DONTDUMP)
	m := &memory{data: data}
	m.crew = newCrew(1, 0, func(_ *worker, r *Request) error {
		m.zero(r.Offset, r.Length)
		return nil
	})
	// The pages go when it is closed, the addresses when nobody can use them
	// any more: a Submit that overlaps with Close never finds foreign memory,
	// and Submit needs no counter that all workers would write.
	runtime.AddCleanup(m, func(unmap func()) { unmap() }, unmap)
	return m, nil
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) Info() Info { return Info{Kind: "mem", CanDiscard: true, Private: true} }

func (m *memory) Submit(r *Request) (bool, error) {
	if m.closed.Load() {
		return true, ErrClosed
	}
	if err := r.check(int64(len(m.data)), false); err != nil {
		return true, err
	}
	switch r.Op {
	case Read:
		at := m.data[r.Offset:]
		for _, b := range r.Buffers {
			at = at[copy(b, at):]
		}
	case Write:
		at := m.data[r.Offset:]
		for _, b := range r.Buffers {
			at = at[copy(at, b):]
		}
	case WriteZeroes, Discard:
		if r.Length > maxInlineZero && r.Completer != nil {
			if err := m.crew.submit(r); err != nil {
				return true, err
			}
			return false, nil
		}
		m.zero(r.Offset, r.Length)
	}
	runtime.KeepAlive(m)
	return true, nil
}

// zero makes a range read as zeroes and gives whole huge pages back. Parts of
// one are cleared instead: splitting it costs more (19 µs against 14 µs for
// 1 MiB, 20 µs against 0.2 µs for 4 KiB) and later accesses would lose it.
func (m *memory) zero(off, n int64) {
	b := m.data[off : off+n]
	head := min(-off&(hugePage-1), n)
	clearUsed(b[:head])
	b = b[head:]
	for len(b) >= hugePage {
		// In portions, because mapping and unmapping wait while one runs.
		part := b[:min(len(b)&^(hugePage-1), maxPortion)]
		if unix.Madvise(part, unix.MADV_DONTNEED) != nil {
			clearUsed(part)
		}
		b = b[len(part):]
	}
	clearUsed(b)
}

// clearUsed zeroes what is not zero already: memory that was never written
// stays unpopulated.
func clearUsed(b []byte) {
	const page = 4096
	for len(b) > 0 {
		part := b[:min(len(b), page)]
		if !bytes.Equal(part, zeroes[:len(part)]) {
			clear(part)
		}
		b = b[len(part):]
	}
}

func (m *memory) Close() error {
	m.once.Do(func() {
		m.closed.Store(true)
		m.crew.close()
		_ = unix.Madvise(m.data, unix.MADV_DONTNEED)
	})
	return nil
}
