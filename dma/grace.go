package dma

import (
	"math"
	"sync/atomic"
)

// retirement is a set of regions that left the table together and wait for their
// release: first for the readers, then for the pins.
type retirement struct {
	t       *Table
	gen     uint64 // of the first snapshot without the regions
	regions []*region
	done    func()
	all     bool // done waits for all earlier retirements too

	left     atomic.Int64 // regions not yet released
	finished bool         // under Table.mu
}

// retire is called after the publication of the snapshot without w's regions.
//
// Order matters. A reader publishes its section, then loads the snapshot; here the
// snapshot was published, then the sections are loaded. Go's atomics are
// sequentially consistent, so either the reader gets the new snapshot or its
// section is seen here. In the same way a reader's Exit clears the section and
// then loads waiters, while waiters is set here before the sections are loaded.
func (t *Table) retire(w *retirement) {
	w.left.Store(int64(len(w.regions)) + 1) // one for drain itself
	t.mu.Lock()
	t.unfinished = append(t.unfinished, w)
	t.waiting = append(t.waiting, w)
	t.waiters.Store(true)
	passed := t.passed()
	t.mu.Unlock()
	drain(passed)
}

// reclaim is the slow half of Reader.Exit.
func (t *Table) reclaim() {
	t.mu.Lock()
	passed := t.passed()
	t.mu.Unlock()
	drain(passed)
}

// passed takes the retirements out of the waiting list that no reader can see any
// more. The caller holds mu.
func (t *Table) passed() []*retirement {
	oldest := uint64(math.MaxUint64)
	for _, r := range t.readers {
		if gen := r.section.Load(); gen != 0 {
			oldest = min(oldest, gen)
		}
	}
	var out, rest []*retirement
	for _, w := range t.waiting {
		if w.gen <= oldest {
			out = append(out, w)
		} else {
			rest = append(rest, w)
		}
	}
	t.waiting = rest
	t.waiters.Store(len(rest) > 0)
	return out
}

// drain releases regions that are not pinned and leaves the others to the last
// Pin.Release. No reader can pin them any more.
func drain(list []*retirement) {
	for _, w := range list {
		var free []*region
		for _, r := range w.regions {
			r.owner = w
			if r.pins.Add(draining) == draining {
				free = append(free, r)
			}
		}
		w.release(free...)
		w.gone()
	}
}

// largeUnmap is the size, in bytes, from which on munmap(2) may take long.
const largeUnmap = 64 << 20

// release runs on whoever let go of regions last, a worker perhaps: the kernel may take
// its time to give their pages back, and a goroutine waits for that.
func (w *retirement) release(regions ...*region) {
	var last []*mapping
	size := uint64(0)
	for _, r := range regions {
		if r.file == nil || !w.t.drop(r.file) {
			w.gone()
			continue
		}
		last = append(last, r.file)
		size += r.file.span.len()
	}
	if size >= largeUnmap {
		go w.unmap(last)
	} else {
		w.unmap(last)
	}
}

func (w *retirement) unmap(mappings []*mapping) {
	for _, m := range mappings {
		w.t.unmap(m)
		w.gone()
	}
}

func (w *retirement) gone() {
	if w.left.Add(-1) == 0 {
		w.t.finish(w)
	}
}

// finish runs done, and that of every UnmapAll that waited for w only.
func (t *Table) finish(w *retirement) {
	t.mu.Lock()
	w.finished = true
	var ready []func()
	rest := t.unfinished[:0]
	for _, u := range t.unfinished {
		if u.finished && (!u.all || len(rest) == 0) {
			if u.done != nil {
				ready = append(ready, u.done)
			}
			continue
		}
		rest = append(rest, u)
	}
	clear(t.unfinished[len(rest):])
	t.unfinished = rest
	t.mu.Unlock()
	for _, done := range ready {
		done()
	}
}
