package dma

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConcurrentMapUnmapReadPin: one goroutine maps and unmaps, others translate,
// read and pin. Each slot of the address space is a file of its own with its number
// in every word, so that a wrong translation, and memory that was released too early
// (it faults, or its place was taken), both show.
func TestConcurrentMapUnmapReadPin(t *testing.T) {
	checkFDs(t)
	const slots, rounds, readers = 32, 4000, 3
	var files [slots]int
	for i := range files {
		files[i] = newFile(t, page)
		tag := make([]byte, page)
		for k := range tag {
			tag[k] = byte(i + 1)
		}
		_, err := unix.Pwrite(files[i], tag, 0)
		must(t, err)
	}
	tab := newTable(t, Config{})
	var stop atomic.Bool
	var wg, readersGone sync.WaitGroup
	pins := make(chan pinnedSlot, 64)
	var reads, pinned atomic.Int64
	for seed := range uint64(readers) {
		readersGone.Go(func() {
			r := tab.NewReader()
			defer r.Close()
			rng := rand.New(rand.NewPCG(seed, 3))
			for !stop.Load() {
				r.Enter()
				for range 8 {
					n, off := rng.Uint64N(slots), rng.Uint64N(page/8)*8
					if rng.Uint32()%4 == 0 {
						if b, pin, err := r.Pin(n*page+off, 8, rw); err == nil {
							pinned.Add(1)
							pins <- pinnedSlot{b, pin, n}
						}
						continue
					}
					if b, err := r.Bytes(n*page+off, 8, ProtRead); err == nil {
						reads.Add(1)
						checkTag(t, b, n)
					}
				}
				r.Exit()
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for p := range pins {
				checkTag(t, p.b, p.slot)
				p.pin.Release()
			}
		})
	}

	rng := rand.New(rand.NewPCG(9, 9))
	var mapped [slots]bool
	var expected int64
	var done atomic.Int64
	for range rounds {
		n := rng.IntN(slots)
		switch {
		case rng.IntN(200) == 0:
			expected++
			tab.UnmapAll(func() { done.Add(1) })
			mapped = [slots]bool{}
		case mapped[n]:
			expected++
			must(t, tab.Unmap(uint64(n)*page, page, func() { done.Add(1) }))
			mapped[n] = false
		default:
			must(t, tab.Map(Mapping{IOVA: uint64(n) * page, Size: page, Prot: rw, FD: dup(t, files[n])}))
			mapped[n] = true
		}
	}
	stop.Store(true)
	readersGone.Wait()
	close(pins)
	wg.Wait()
	tab.UnmapAll(nil)
	if called := done.Load(); called != expected {
		t.Errorf("done was called %d times for %d unmaps", called, expected)
	}
	if reads.Load() == 0 || pinned.Load() == 0 {
		t.Errorf("%d reads, %d pins: the test showed nothing", reads.Load(), pinned.Load())
	}
}

type pinnedSlot struct {
	b    []byte
	pin  Pin
	slot uint64
}

func checkTag(t *testing.T, b []byte, slot uint64) {
	if got, want := Load64(b, 0), (slot+1)*0x0101010101010101; got != want {
		t.Errorf("slot %d holds %#x", slot, got)
	}
}

// The store of a section and the load of the snapshot race with the publication of
// an Unmap and its look at the sections: whoever comes second must see the other.
func TestEnterRacesWithUnmap(t *testing.T) {
	tab := newTable(t, Config{})
	file := newFile(t, page)
	r := newReader(t, tab)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var inside atomic.Bool
	wg.Go(func() {
		for !stop.Load() {
			r.Enter()
			if b, err := r.Bytes(page, 8, rw); err == nil {
				inside.Store(true)
				Store64(b, 0, 1) // faults if it is gone
				inside.Store(false)
			}
			r.Exit()
		}
	})
	for range 20000 {
		must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: dup(t, file)}))
		released := make(chan struct{})
		must(t, tab.Unmap(page, page, func() {
			if inside.Load() {
				t.Error("released while a reader was inside")
			}
			close(released)
		}))
		<-released
	}
	stop.Store(true)
	wg.Wait()
}
