package bench

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handover is two rings between two cores, as a device's queue pair is: entries of a cache line
// one way, answers of 16 bytes the other. Each says by itself that it is there.
type handover struct {
	entries [handoverSize]struct {
		words [7]uint64
		turn  atomic.Uint64 // the number of the entry, from 1 on
	}
	answers [handoverSize]struct {
		word uint64
		turn atomic.Uint64
	}
	stop atomic.Bool
	made uint64 // entries so far
}

const handoverSize = 256 // entries; the most that can be under way

func handoverName(depth int) string { return fmt.Sprintf("handover/depth=%d", depth) }

// handoverLimits are a core that makes entries and takes answers, and one that answers, with so
// many entries under way as a case has commands.
func handoverLimits() (limits []Limit) {
	var depths []int
	for _, d := range drives() {
		if d.backend == "null" {
			depths = append(depths, d.depth)
		}
	}
	slices.Sort(depths)
	for _, depth := range slices.Compact(depths) {
		limits = append(limits, Limit{Name: handoverName(depth), Setup: func(env *Env) (Subject, error) {
			h := new(handover)
			var other sync.WaitGroup
			other.Go(func() { h.answer(env.DeviceCPUs) })
			env.Cleanup(func() {
				h.stop.Store(true)
				other.Wait()
			})
			return Subject{Run: func(n int) error { h.ask(n, depth); return nil }, UnderWay: depth}, nil
		}})
	}
	return limits
}

// answer is the other core's part.
func (h *handover) answer(cpus []int) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, pinned as it is
	if len(cpus) > 0 {
		var set unix.CPUSet
		set.Set(cpus[0])
		_ = unix.SchedSetaffinity(0, &set) // else it is where it is
	}
	for turn := uint64(1); ; turn++ {
		entry := &h.entries[turn%handoverSize]
		for entry.turn.Load() != turn {
			if h.stop.Load() {
				return
			}
		}
		var sum uint64
		for _, word := range entry.words {
			sum += word
		}
		answer := &h.answers[turn%handoverSize]
		answer.word = sum
		answer.turn.Store(turn)
	}
}

// ask makes n entries and takes their answers.
func (h *handover) ask(n, depth int) {
	first := h.made
	taken := first
	for taken < first+uint64(n) {
		for h.made < first+uint64(n) && h.made-taken < uint64(depth) {
			h.made++
			entry := &h.entries[h.made%handoverSize]
			for i := range entry.words {
				entry.words[i] = h.made
			}
			entry.turn.Store(h.made)
		}
		for taken < h.made && h.answers[(taken+1)%handoverSize].turn.Load() == taken+1 {
			taken++
		}
	}
}
