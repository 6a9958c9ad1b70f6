package link

import (
	"sync"
	"time"
)

// alarm wakes a queue that sleeps when a frame is due. It is set only while the queue sleeps.
type alarm struct {
	wake func()

	mu     sync.Mutex
	timer  *time.Timer
	at     time.Duration // for which the timer is set; 0: it is not
	asleep bool
	closed bool
}

func (a *alarm) sleep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asleep = true
}

func (a *alarm) awake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asleep, a.at = false, 0
}

// set makes sure that a queue that sleeps is woken at a time on the clock now.
func (a *alarm) set(at time.Duration, now func() time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asleep || a.closed || a.at != 0 && a.at <= at {
		return
	}
	a.at = max(at, 1)
	if a.timer == nil {
		a.timer = time.AfterFunc(at-now(), a.ring)
	} else {
		a.timer.Reset(at - now())
	}
}

func (a *alarm) ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = 0
	if a.asleep && !a.closed {
		a.wake()
	}
}

// close returns when wake is not called any more.
func (a *alarm) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
