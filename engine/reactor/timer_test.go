package reactor

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

func TestTimersRunInTheOrderOfTheirTime(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	var order []int
	done := make(chan struct{})
	start := time.Now()
	on(t, r, func() {
		for _, ms := range []int{9, 3, 0, 6, 1, -5} {
			r.AfterFunc(time.Duration(ms)*time.Millisecond, func() {
				if time.Since(start) < time.Duration(ms)*time.Millisecond {
					t.Errorf("timer of %d ms ran after %v", ms, time.Since(start))
				}
				order = append(order, ms)
				if len(order) == 6 {
					close(done)
				}
			})
		}
	})
	wait(t, done, "the timers")
	if want := []int{1, 3, 6, 9}; !slices.Equal(order[2:], want) || !slices.Contains(order[:2], -5) {
		t.Errorf("order %v", order)
	}
}

func TestTimerStopAndReset(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	fired := make(chan string, 10)
	on(t, r, func() {
		stopped := r.AfterFunc(0, func() { fired <- "stopped" })
		if !stopped.Stop() || stopped.Stop() {
			t.Error("Stop of an armed timer, then of a stopped one")
		}
		early := r.AfterFunc(time.Hour, func() { fired <- "early" })
		late := r.AfterFunc(0, func() { fired <- "late" })
		again := r.AfterFunc(time.Hour, func() { fired <- "again" })
		again.Stop()
		if !early.Reset(time.Millisecond) || !late.Reset(2*time.Millisecond) || again.Reset(3*time.Millisecond) {
			t.Error("Reset tells whether the timer was armed")
		}
		if stopped.Stop() {
			t.Error("Stop of a stopped timer")
		}
	})
	for _, want := range []string{"early", "late", "again"} {
		if got := wait(t, fired, want); got != want {
			t.Errorf("%q fired, want %q", got, want)
		}
	}
}

func TestTimerReArmsItself(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	done := make(chan struct{})
	on(t, r, func() {
		n := 0
		var tm *Timer
		tm = r.AfterFunc(0, func() {
			if tm.Stop() {
				t.Error("a timer that runs is not armed")
			}
			if n++; n == 10 {
				close(done)
				return
			}
			tm.Reset(time.Duration(n%2) * time.Microsecond)
		})
	})
	wait(t, done, "ten runs")
	on(t, r, func() {
		fds := [1]unix.PollFd{{Fd: int32(r.timers.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds[:], 0); n != 0 || err != nil {
			t.Error("the descriptor is still readable: the loop would not sleep")
		}
	})
}

// Thousands of timers share one descriptor, and those stopped do not fire.
func TestManyTimers(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	const n = 2000
	fired := 0
	done := make(chan struct{})
	before := holdings.Descriptors(t)
	on(t, r, func() {
		timers := make([]*Timer, n)
		for i := range timers {
			timers[i] = r.AfterFunc(time.Duration(i*7919%n)*time.Microsecond, func() {
				if i%3 == 0 {
					t.Error("a stopped timer fired")
				}
				fired++
				if fired == n-(n+2)/3 {
					close(done)
				}
			})
		}
		for i := 0; i < n; i += 3 {
			timers[i].Stop()
		}
	})
	wait(t, done, "the timers")
	if after := holdings.Descriptors(t); after != before {
		t.Errorf("%d descriptors for timers", after-before)
	}
}

// A timer armed for later than another costs no system call, nor does one that is armed and stopped within a turn.
func TestTimerDescriptorIsSetOnlyWhenItMustExpireEarlier(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	armed := func() (d time.Duration) {
		turns(t, r) // the descriptor is set at the end of a turn
		on(t, r, func() { d = r.timers.armed })
		return d
	}
	on(t, r, func() { r.AfterFunc(time.Hour, func() {}).Stop() })
	if got := armed(); got != 0 {
		t.Errorf("armed for %v without a timer", got)
	}
	var first *Timer
	on(t, r, func() { first = r.AfterFunc(time.Hour, func() {}) })
	at := armed()
	if at == 0 {
		t.Error("not armed")
	}
	on(t, r, func() {
		r.AfterFunc(2*time.Hour, func() {})
		first.Reset(3 * time.Hour)
	})
	if got := armed(); got != at {
		t.Errorf("armed for %v, want %v as before", got, at)
	}
	on(t, r, func() { r.AfterFunc(time.Minute, func() {}) })
	if got := armed(); got >= at {
		t.Errorf("armed for %v, want earlier than %v", got, at)
	}
}
