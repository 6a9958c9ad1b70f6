package reactor

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

func TestEventfd(t *testing.T) {
	holdings.CheckLeaks(t)
	e, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	if n := e.Drain(); n != 0 {
		t.Errorf("Drain of a new eventfd = %d", n)
	}
	for range 3 {
		e.Signal()
	}
	if n := e.Drain(); n != 3 {
		t.Errorf("Drain after three signals = %d", n)
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if e.FD() != -1 {
		t.Errorf("FD after Close = %d", e.FD())
	}
	e.Signal()
	if n := e.Drain(); n != 0 {
		t.Errorf("Drain after Close = %d", n)
	}
}

// Whoever has the descriptor can make it blocking.
func TestDrainSharedNeverBlocks(t *testing.T) {
	holdings.CheckLeaks(t)
	e, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := unix.SetNonblock(e.FD(), false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint64{0, 2, 0} {
		for range want {
			e.Signal()
		}
		if n, err := DrainShared(e.FD()); n != want || err != nil {
			t.Errorf("DrainShared = %d, %v, want %d", n, err, want)
		}
	}
	if _, err := DrainShared(-1); err != unix.EBADF {
		t.Errorf("DrainShared of no descriptor: %v", err)
	}
}
