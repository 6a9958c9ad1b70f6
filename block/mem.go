package block

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

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
	// roomToGrow is how many bytes of addresses a backend has at least, where there are so many.
	roomToGrow = 64 << 30
	// maxLeft is how many mappings there may be that nobody uses any more before the
	// collector is called: 2,000 with room to grow are all addresses that there are.
	maxLeft = 64
)

// left counts mappings that nobody uses any more and whose addresses are not free yet.
var left atomic.Int32

// mapping is private anonymous memory. It never moves, so that requests in flight do not mind
// when its size changes.
type mapping struct {
	data   []byte // begins on a huge page; also what is beyond usable
	usable int64  // so many bytes can be touched
	left   *atomic.Bool
}

// memory keeps its bytes in private anonymous memory, populated when first
// written.
type memory struct {
	*mapping
	size   atomic.Int64
	crew   *crew   // zeroes large ranges
	volume *volume // nil: not of a pool
	closed atomic.Bool
	mu     sync.Mutex // closing, and changing the size
}

// Memory returns a backend that keeps size bytes in memory. Pages cost
// nothing until they are written and are given back when discarded. It is a Resizer that can
// grow to 64 GiB or to twice its size, whichever is more, where there are so many addresses.
func Memory(size int64) (Backend, error) {
	if err := checkSize(size); err != nil {
		return nil, &OpenError{Spec: "mem", Err: err}
	}
	m, err := newMapping(size)
	if err != nil {
		return nil, &OpenError{Spec: "mem", Err: because(err, "cannot reserve %d bytes of memory: %v", size, err)}
	}
	return m.backend(size, nil), nil
}

func newMapping(size int64) (*mapping, error) {
	if left.Load() >= maxLeft {
		runtime.GC() // a large heap is not collected for long
	}
	least := (uint64(size) + hugePage - 1) &^ (hugePage - 1)
	data, unmap, err := reserveMemory(max(roomToGrow, 2*least))
	if err != nil {
		if data, unmap, err = reserveMemory(least); err != nil {
			return nil, err
		}
	}
	// Both are for speed and for readable core dumps; kernels without them
	// serve as well.
	_ = unix.Madvise(data, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(data, unix.MADV_DONTDUMP)
	m := &mapping{data: data, left: new(atomic.Bool)}
	counted := m.left
	// The pages go when it is closed, the addresses when nobody can use them
	// any more: a Submit that overlaps with Close never finds foreign memory,
	// and Submit needs no counter that all workers would write.
	runtime.AddCleanup(m, func(unmap func()) {
		unmap()
		if counted.Load() {
			left.Add(-1)
		}
	}, unmap)
	return m, m.extend(size)
}

// extend makes the first size bytes usable.
func (m *mapping) extend(size int64) error {
	if size > int64(len(m.data)) {
		return because(syscall.ENOMEM, "there are addresses for %d bytes only", len(m.data))
	}
	if to := (size + hugePage - 1) &^ (hugePage - 1); to > m.usable {
		if err := unix.Mprotect(m.data[m.usable:to], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return err
		}
		m.usable = to
	}
	return nil
}

// backend returns a backend on the first size bytes.
func (m *mapping) backend(size int64, v *volume) *memory {
	b := &memory{mapping: m, volume: v}
	b.size.Store(size)
	b.crew = newCrew(1, 0, func(_ *worker, r *Request) error {
		m.zero(r.Offset, r.Length)
		return nil
	})
	return b
}

// Resize sets the size. Memory that is cut off is given back.
func (m *memory) Resize(size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return ErrClosed
	}
	return m.volume.resize(size, func() error {
		before := m.size.Load()
		if err := m.extend(size); err != nil {
			return err
		}
		if size < before {
			m.size.Store(size)
			m.zero(size, before-size)
			return nil
		}
		// A write beyond the end of what was cut off, which nobody should have had
		// in flight, shall not show.
		m.zero(before, size-before)
		m.size.Store(size)
		return nil
	})
}

func (m *memory) Size() int64 { return m.size.Load() }

func (m *memory) Info() Info { return Info{Kind: "mem", CanDiscard: true, Private: true} }

func (m *memory) Submit(r *Request) (bool, error) {
	if m.closed.Load() {
		return true, ErrClosed
	}
	if err := r.check(m.size.Load(), false); err != nil {
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
func (m *mapping) zero(off, n int64) {
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

// empty gives all of the memory back. Nobody uses it any more.
func (m *mapping) empty() {
	_ = unix.Madvise(m.data[:m.usable], unix.MADV_DONTNEED)
	if !m.left.Swap(true) {
		left.Add(1)
	}
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Swap(true) {
		return nil
	}
	m.crew.close()
	if m.volume != nil {
		m.volume.close()
	} else {
		m.empty()
	}
	return nil
}
