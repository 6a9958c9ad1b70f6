package reactor

import "testing"

func TestEventfd(t *testing.T) {
	checkLeaks(t)
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
