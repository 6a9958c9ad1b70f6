package engine

import "testing"

// Looks in vain become rare, but never cease; one that finds something brings them all back.
func TestLooksInVainBecomeRare(t *testing.T) {
	var a again
	looks := func(events int, some bool) (n int) {
		for range events {
			if a.look() {
				a.found(some)
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		events int
		some   bool
		looks  int
	}{
		{10, true, 10},
		{1, false, 1},
		{2, false, 1},           // one left out, then one in vain
		{4, false, 1},           // three left out
		{8 + 16 + 32, false, 3}, // seven, fifteen, thirty-one
		{64 * 10, false, 10},    // never more than maxVain
		{64, true, 1},
		{10, true, 10},
	} {
		if n := looks(c.events, c.some); n != c.looks {
			t.Errorf("%d looks at %d events (found something: %t), want %d", n, c.events, c.some, c.looks)
		}
	}
}
