package irq

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fill brings the counter of an eventfd to its limit and makes its description blocking.
func fill(t *testing.T, fd int, counter uint64) {
	t.Helper()
	putCounter(t, fd, counter)
	setNonblock(t, fd, false)
}

// waitBlocked waits until a thread of this process sits in a write to fd.
func waitBlocked(t *testing.T, v *Vector) {
	t.Helper()
	e := v.event.Load()
	waitFor(t, func() bool { return e.word.Load()&eventUsers != 0 })
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("condition did not become true")
		}
	}
}

func TestBlockedWriterIsReleased(t *testing.T) {
	checkFDs(t)
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 2}})
	s.period = time.Hour // the test does the checks
	mine, theirs := newEventfd(t), 0
	theirs = dup(t, mine)
	other := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{theirs, dup(t, other)}))
	fill(t, mine, 0xfffffffffffffffe)
	if s.CheckStuck() {
		t.Fatal("stuck without a writer")
	}

	result := make(chan error, 1)
	go func() { result <- s.Vector(MSIX, 0).Trigger() }()
	waitBlocked(t, s.Vector(MSIX, 0))
	runtime.GC() // hangs if the blocked thread kept its P

	if !s.CheckStuck() {
		t.Error("blocked writer not noticed")
	}
	if !s.CheckStuck() {
		t.Error("verdict was forgotten")
	}
	must(t, <-result)
	for n := range 2 {
		if err := s.Vector(MSIX, n).Trigger(); !errors.Is(err, ErrClosed) {
			t.Errorf("trigger of vector %d after the verdict: %v", n, err)
		}
	}
	s.Close()
}

func TestBlockedWriterIsReleasedWithoutHelp(t *testing.T) {
	checkFDs(t)
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}})
	s.period = time.Millisecond
	mine := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	fill(t, mine, 0xfffffffffffffffe)
	must(t, s.Vector(MSIX, 0).Trigger())
	if !s.CheckStuck() {
		t.Error("no verdict")
	}
}

// The client fills the counter, its vector is replaced or the set closed, and the
// writer still sits in the eventfd that nobody refers to.
func TestBlockedWriterOfARemovedEventfd(t *testing.T) {
	for _, tc := range []struct {
		name   string
		remove func(*Set) error
	}{
		{"disable", func(s *Set) error { return s.Disable(MSIX) }},
		{"de-assign", func(s *Set) error { return s.SetEventfds(MSIX, 0, []int{-1}) }},
		{"close", func(s *Set) error { s.Close(); return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkFDs(t)
			s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}})
			s.period = time.Hour
			mine := newEventfd(t)
			must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
			fill(t, mine, 0xfffffffffffffffe)
			v := s.Vector(MSIX, 0)
			result := make(chan error, 1)
			go func() { result <- v.Trigger() }()
			waitBlocked(t, v)
			must(t, tc.remove(s))
			if !s.CheckStuck() {
				t.Error("blocked writer not noticed")
			}
			must(t, <-result)
			waitFor(t, func() bool { s.CheckStuck(); return len(s.leaving) == 0 })
		})
	}
}

// The writer entered while the description was blocking; then the client makes it
// non-blocking, so that its flags look innocent.
func TestBlockedWriterUnderNonblockingDescription(t *testing.T) {
	checkFDs(t)
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}})
	s.period = time.Hour
	mine := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	fill(t, mine, 0xfffffffffffffffe)
	v := s.Vector(MSIX, 0)
	result := make(chan error, 1)
	go func() { result <- v.Trigger() }()
	waitBlocked(t, v)
	waitSleeping(t, v.event.Load().fd)
	setNonblock(t, mine, true)
	if s.CheckStuck() {
		t.Error("verdict on a description that looks innocent at the first sight")
	}
	if !s.CheckStuck() {
		t.Error("no verdict on a writer that does not move")
	}
	must(t, <-result)
}

// EFD_SEMAPHORE: a read takes only 1, which frees one writer only.
func TestManyBlockedWriters(t *testing.T) {
	checkFDs(t)
	const writers = 8
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}})
	s.period = time.Hour
	mine, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE|unix.EFD_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(mine) })
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	fill(t, mine, 0xfffffffffffffffe)
	v := s.Vector(MSIX, 0)
	e := v.event.Load()
	result := make(chan error, writers)
	for range writers {
		go func() { result <- v.Trigger() }()
	}
	waitFor(t, func() bool { return e.word.Load()&eventUsers == writers*eventUser })
	waitFor(t, func() bool { s.CheckStuck(); return e.word.Load()&eventUsers == 0 })
	for range writers {
		must(t, <-result)
	}
}

// The client fills the counter again as fast as it can; each read is a chance for
// the writer to be the first.
func TestBlockedWriterAgainstARefillingClient(t *testing.T) {
	checkFDs(t)
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}})
	s.period = time.Millisecond
	mine := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	fill(t, mine, 0xfffffffffffffffe)
	var stop atomic.Bool
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		limit := binary.NativeEndian.AppendUint64(nil, 0xfffffffffffffffe)
		for !stop.Load() {
			_, _ = unix.Write(mine, limit)
		}
	}()
	must(t, s.Vector(MSIX, 0).Trigger())
	stop.Store(true)
	setNonblock(t, mine, true) // for the reads below; the client is inside write still
	waitFor(t, func() bool {
		counter(t, mine)
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	if !s.CheckStuck() {
		t.Error("no verdict")
	}
}

// A non-blocking counter at its limit is no offence: the client has not looked for a
// while, and it will see the interrupt when it does.
func TestFullNonblockingEventfdCountsAsSignalled(t *testing.T) {
	checkFDs(t)
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}})
	mine := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	putCounter(t, mine, 0xfffffffffffffffe)
	must(t, s.Vector(MSIX, 0).Trigger())
	for range 2 {
		if s.CheckStuck() {
			t.Error("verdict on a client that only was slow")
		}
	}
	if got := counter(t, mine); got != 0xfffffffffffffffe {
		t.Errorf("counter is %#x", got)
	}
}

func TestOnStuckIsToldOnce(t *testing.T) {
	checkFDs(t)
	told := make(chan struct{}, 10)
	s := newSet(t, Config{Counts: [NumIndexes]int{MSIX: 1}, OnStuck: func() { told <- struct{}{} }})
	s.period = time.Millisecond
	mine := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	fill(t, mine, 0xfffffffffffffffe)
	must(t, s.Vector(MSIX, 0).Trigger())
	<-told
	s.expire()
	if len(told) != 0 {
		t.Error("told again")
	}
}
