package nvme

import (
	"slices"
	"sync"
)

// rangeLock keeps apart those who touch the same blocks at the same time, in the order in
// which they came: any number may read, or one writes. The zero value is ready.
type rangeLock struct {
	mu     sync.Mutex
	ended  sync.Cond
	ranges []*lockedRange // in the order of their coming, held or waiting
}

// lockedRange is what one of them has.
type lockedRange struct {
	first, end uint64
	shared     bool
}

// lock waits until nobody who came before stands in the way.
func (l *rangeLock) lock(r *lockedRange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended.L = &l.mu
	l.ranges = append(l.ranges, r)
	for l.blocked(r) {
		l.ended.Wait()
	}
}

func (l *rangeLock) blocked(r *lockedRange) bool {
	for _, o := range l.ranges {
		if o == r {
			return false
		}
		if o.first < r.end && r.first < o.end && !(o.shared && r.shared) {
			return true
		}
	}
	return false
}

func (l *rangeLock) unlock(r *lockedRange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.ranges, r)
	l.ranges = slices.Delete(l.ranges, i, i+1)
	if len(l.ranges) > 0 {
		l.ended.Broadcast()
	}
}
