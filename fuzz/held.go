package fuzz

import (
	"bytes"
	"os"
	"runtime"
	"time"

	"vfiouser/fuzz/internal/stacks"
)

// held is what a process holds.
type held struct {
	known                             bool
	goroutines, descriptors, mappings int
	buf                               []byte
}

// before takes down what is held before the first input, in which what made the engine ready may
// still be leaving.
func (h *held) before(t tester) {
	if h.known {
		return
	}
	least := h.count(t)
	for range settleTimes {
		time.Sleep(time.Millisecond)
		least.least(h.count(t))
	}
	h.goroutines, h.descriptors, h.mappings = least.goroutines, least.descriptors, least.mappings
	h.known = true
}

const settleTimes = 20

// leakAfter is how long what is left may take to go, at least.
const leakAfter = 1500 * time.Millisecond

func (h *held) least(o held) {
	h.goroutines, h.descriptors, h.mappings = min(h.goroutines, o.goroutines), min(h.descriptors, o.descriptors), min(h.mappings, o.mappings)
}

// after waits until no more is held than before what happened, for limit at least.
func (h *held) after(t tester, limit time.Duration, happened *trace) {
	var now held
	pause := time.Microsecond
	for range limit / time.Millisecond {
		now = h.count(t)
		if now.goroutines <= h.goroutines && now.descriptors <= h.descriptors && now.mappings <= h.mappings {
			h.least(now)
			return
		}
		time.Sleep(pause) // what is released on the side takes its time
		pause = min(2*pause, time.Millisecond)
	}
	t.Errorf("%d goroutines, %d descriptors and %d mappings of client memory are left, %d, %d and %d were there before\n%s\ngoroutines:\n%s",
		now.goroutines, now.descriptors, now.mappings, h.goroutines, h.descriptors, h.mappings, happened, stacks.All())
	h.known = false // the next input is not to blame
}

func (h *held) count(t tester) held {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	if h.buf == nil {
		h.buf = make([]byte, 256<<10)
	}
	n := 0
	for {
		got, err := maps.Read(h.buf[n:])
		n += got
		if err != nil || n == len(h.buf) {
			break
		}
	}
	return held{goroutines: runtime.NumGoroutine(), descriptors: len(names), mappings: bytes.Count(h.buf[:n], []byte("/memfd:"))}
}
