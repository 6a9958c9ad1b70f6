package irq

import (
	"bytes"
	"errors"
	"testing"
)

func TestRestoredInterruptsFireWhenFlushed(t *testing.T) {
	checkFDs(t)
	cfg := Config{}
	cfg.Counts[INTx], cfg.Counts[MSIX] = 1, 3
	from, to := newSet(t, cfg), newSet(t, cfg)
	must(t, from.Mask(MSIX, 1, 1, nil))
	for n := range 2 {
		must(t, from.Vector(MSIX, n).Trigger())
	}
	must(t, from.Mask(INTx, 0, 1, nil))
	must(t, from.SetGate(MSIX, 2, 1, GateVector, true))
	saved := from.Save()
	if want := []byte{savedMasked, savedPending, savedMasked | savedPending, savedGateVector}; !bytes.Equal(saved, want) {
		t.Fatalf("saved %v, want %v", saved, want)
	}

	var fds [3]int
	for n := range fds {
		fds[n] = newEventfd(t)
		must(t, to.SetEventfds(MSIX, n, []int{dup(t, fds[n])}))
	}
	must(t, to.Mask(MSIX, 2, 1, nil))
	must(t, to.Restore(saved))
	if got := to.Save(); !bytes.Equal(got, saved) {
		t.Errorf("restored %v, want %v", got, saved)
	}
	check := func(when string, want ...uint64) {
		t.Helper()
		for n, fd := range fds {
			if got := counter(t, fd); got != want[n] {
				t.Errorf("%s vector %d has fired %d times, want %d", when, n, got, want[n])
			}
		}
	}
	check("before it may,", 0, 0, 0)
	to.Flush()
	check("flushed,", 1, 0, 0)
	must(t, to.Unmask(MSIX, 1, 1, nil))
	must(t, to.Vector(MSIX, 2).Trigger())
	check("unmasked,", 0, 1, 0)
	must(t, to.SetGate(MSIX, 2, 1, GateVector, false)) // its mask is gone as well
	check("opened,", 0, 0, 1)
	to.Flush()
	check("flushed again,", 0, 0, 0)
}

func TestBadStatesAreRefused(t *testing.T) {
	cfg := Config{}
	cfg.Counts[MSI] = 2
	s := newSet(t, cfg)
	must(t, s.Mask(MSI, 0, 2, nil))
	for _, p := range [][]byte{nil, {0}, {0, 0, 0}, {0, savedAll + 1}, {0x80, 0}} {
		if err := s.Restore(p); !errors.Is(err, ErrData) {
			t.Errorf("%v: %v", p, err)
		}
	}
	if !s.Vector(MSI, 0).Masked() {
		t.Error("a state that was refused has changed the set")
	}
}

// ERR and REQ can be neither masked nor gated, so nobody could undo it.
func TestRestoreMasksOnlyWhatCanBeUnmasked(t *testing.T) {
	cfg := Config{}
	cfg.Counts[MSIX], cfg.Counts[Err], cfg.Counts[Req] = 1, 1, 1
	s := newSet(t, cfg)
	for _, p := range [][]byte{{0, savedMasked, 0}, {0, 0, savedMasked}, {0, savedGateFunction, 0}, {0, 0, savedGateVector}} {
		if err := s.Restore(p); !errors.Is(err, ErrData) {
			t.Errorf("%v: %v", p, err)
		}
	}
	must(t, s.Restore([]byte{savedMasked | savedGateFunction | savedGateVector, savedPending, 0}))
}
