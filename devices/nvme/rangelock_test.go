package nvme

import (
	"sync"
	"testing"
)

func TestRangesThatExcludeEachOther(t *testing.T) {
	for _, c := range []struct {
		name    string
		a, b    lockedRange
		blocked bool
	}{
		{"readers of the same", lockedRange{1, 5, true}, lockedRange{1, 5, true}, false},
		{"writers of the same", lockedRange{1, 5, false}, lockedRange{1, 5, false}, true},
		{"reader and writer", lockedRange{1, 5, true}, lockedRange{4, 5, false}, true},
		{"writer and reader", lockedRange{4, 9, false}, lockedRange{1, 5, true}, true},
		{"side by side", lockedRange{1, 5, false}, lockedRange{5, 6, false}, false},
		{"one in the other", lockedRange{1, 100, false}, lockedRange{50, 51, true}, true},
	} {
		var l rangeLock
		l.lock(&c.a)
		l.ranges = append(l.ranges, &c.b)
		if l.blocked(&c.b) != c.blocked {
			t.Errorf("%s: blocked %v", c.name, !c.blocked)
		}
	}
}

// A writer that waits is not overtaken by readers that come later.
func TestRangesKeepTheirOrder(t *testing.T) {
	var l rangeLock
	reader, writer, late := &lockedRange{0, 4, true}, &lockedRange{2, 3, false}, &lockedRange{0, 4, true}
	l.lock(reader)
	l.ranges = append(l.ranges, writer, late)
	if !l.blocked(writer) || !l.blocked(late) {
		t.Fatal("overtaken")
	}
	l.unlock(reader)
	if l.blocked(writer) || !l.blocked(late) {
		t.Fatal("the writer does not follow")
	}
	l.unlock(writer)
	if l.blocked(late) {
		t.Fatal("the reader does not follow")
	}
}

func TestRangeLockUnderLoad(t *testing.T) {
	var l rangeLock
	var counts [8]int
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				first := uint64(i+n) % 6
				r := &lockedRange{first, first + 3, n%4 == 0}
				l.lock(r)
				for k := r.first; k < r.end; k++ {
					if r.shared {
						_ = counts[k]
					} else {
						counts[k]++
					}
				}
				l.unlock(r)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	if total != 8*150*3 {
		t.Errorf("%d", total)
	}
	if len(l.ranges) != 0 {
		t.Error("a range is left")
	}
}
