package irq

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoInterruptIsLost: whatever the control plane does at the same time, a trigger
// is seen sooner or later, as long as the vector ends up assigned and unmasked.
func TestNoInterruptIsLost(t *testing.T) {
	for _, tc := range []struct {
		name  string
		index Index
		churn func(s *Set, fd int) error // leaves the vector unmasked and assigned
	}{
		{"mask", MSIX, func(s *Set, fd int) error {
			return errors.Join(s.Mask(MSIX, 0, 1, nil), unix.Close(fd), s.Unmask(MSIX, 0, 1, nil))
		}},
		{"gate", MSIX, func(s *Set, fd int) error {
			return errors.Join(s.SetGate(MSIX, 0, 1, GateFunction, true), unix.Close(fd), s.SetGate(MSIX, 0, 1, GateFunction, false))
		}},
		{"replace", MSIX, func(s *Set, fd int) error {
			return s.SetEventfds(MSIX, 0, []int{fd})
		}},
		{"take away", MSIX, func(s *Set, fd int) error {
			return errors.Join(s.SetEventfds(MSIX, 0, []int{-1}), s.SetEventfds(MSIX, 0, []int{fd}))
		}},
		{"automask", INTx, func(s *Set, fd int) error {
			return errors.Join(unix.Close(fd), s.Unmask(INTx, 0, 1, nil))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkFDs(t)
			s := newSet(t, counts)
			mine := newEventfd(t)
			must(t, s.SetEventfds(tc.index, 0, []int{dup(t, mine)}))
			var stop atomic.Bool
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop.Store(true)
			wg.Go(func() {
				for ; !stop.Load(); runtime.Gosched() {
					fd, err := unix.FcntlInt(uintptr(mine), unix.F_DUPFD_CLOEXEC, 0)
					if err == nil {
						err = tc.churn(s, fd)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
			v := s.Vector(tc.index, 0)
			for range 5000 {
				must(t, v.Trigger())
				waitFor(t, func() bool { return counter(t, mine) != 0 })
			}
		})
	}
}

// TestWriteNeverReachesAForeignDescriptor replaces eventfds under running triggers
// and opens other files that get the numbers just freed. A trigger that wrote to
// one would leave its mark there.
func TestWriteNeverReachesAForeignDescriptor(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	mine := newEventfd(t)
	v := s.Vector(MSIX, 0)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				if err := v.Trigger(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	reused := 0
	var foreign []int // the last few
	retire := func() {
		if n := counter(t, foreign[0]); n != 0 {
			t.Errorf("foreign descriptor was written to %d times", n)
		}
		unix.Close(foreign[0])
		foreign = foreign[1:]
	}
	for range 3000 {
		fd := dup(t, mine)
		must(t, s.SetEventfds(MSIX, 0, []int{fd}))
		must(t, s.SetEventfds(MSIX, 0, []int{-1}))
		f, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
		if f == fd {
			reused++
		}
		if foreign = append(foreign, f); len(foreign) > 8 {
			retire()
		}
	}
	stop.Store(true)
	wg.Wait()
	for len(foreign) > 0 {
		retire()
	}
	if reused == 0 {
		t.Error("no number was ever used again: the test showed nothing")
	}
}

// TestConcurrentUse calls everything at once, for the race detector and the leak check.
func TestConcurrentUse(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	mine := newEventfd(t)
	var wg sync.WaitGroup
	loop := func(f func()) {
		wg.Go(func() {
			for range 500 {
				f()
			}
		})
	}
	for _, i := range allIndexes {
		v := s.Vector(i, 0)
		loop(func() { _ = v.Trigger() })
		loop(func() { _ = v.SetLevel(true); _ = v.Pending(); _ = v.SetLevel(false) })
		theirs := func() []int {
			fd, err := unix.FcntlInt(uintptr(mine), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			return []int{fd}
		}
		loop(func() { _ = s.SetEventfds(i, 0, theirs()); _ = s.Disable(i) })
		loop(func() { _ = s.SetMaskEventfds(i, 0, theirs()); _ = s.ClearMaskEventfds(i, 0, 1) })
		loop(func() { _ = s.SetUnmaskEventfds(i, 0, theirs()); _ = s.ClearUnmaskEventfds(i, 0, 1) })
		loop(func() { _ = s.Mask(i, 0, 1, nil); _ = s.Unmask(i, 0, 1, nil) })
	}
	loop(func() { s.CheckStuck(); s.ClearPending() })
	wg.Wait()
	if s.CheckStuck() {
		t.Error("verdict on an innocent client")
	}
}
