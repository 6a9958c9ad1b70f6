package engine

import "time"

// idler decides what a worker does in rounds without work: spin for a while, then
// arm its sources and sleep. It belongs to the worker's goroutine.
//
// The spin time adapts: sleeps that end soon say that spinning a little longer
// would have been better, long ones that spinning is a waste.
type idler struct {
	worker *Worker
	spin   time.Duration
	rounds int           // empty rounds since the last work
	since  time.Time     // when the clock was first looked at since the last work
	pause  time.Duration // last pause of a worker with silent sources
}

// reset is called after a round with work.
func (d *idler) reset() {
	d.rounds = 0
	d.pause = 0
}

// empty is called after a round without work; it returns after a sleep, or at once.
func (d *idler) empty(list []attachment) {
	d.rounds++
	if d.rounds%idleRounds != 0 {
		return
	}
	now := time.Now()
	if d.rounds == idleRounds {
		d.since = now
		return
	}
	if d.pause == 0 && now.Sub(d.since) < d.spin {
		return
	}
	d.sleep(list, now)
}

// sleep arms the sources, and sleeps if none of them has work by then.
func (d *idler) sleep(list []attachment, now time.Time) {
	w := d.worker
	w.state.Store(stateArming)
	pending, limit := false, foreverSleep
	for i := range list {
		pending = arm(list[i].src) || pending
		if opt := list[i].opt; opt.Silent && (limit < 0 || opt.MaxSleep < limit) {
			limit = opt.MaxSleep
		}
	}
	if !pending && !w.stop.Load() {
		if limit >= 0 {
			d.pause = min(max(2*d.pause, firstPause), limit)
			limit = d.pause
		}
		w.state.Store(stateAsleep)
		w.wake.wait(limit)
		for !w.state.CompareAndSwap(stateAsleep, stateAwake) {
			time.Sleep(detachPause) // a kick is being served; it is short
		}
		d.adapt(time.Since(now))
		list = *w.list.Load() // a source that was detached meanwhile is not to be called
	} else {
		w.state.Store(stateAwake)
	}
	for i := range list {
		disarm(list[i].src)
	}
	d.rounds = 0
}

// adapt sets the spin time from the length of the sleep that just ended, which is
// some 50 µs on an idle core even if the next work came at once.
func (d *idler) adapt(slept time.Duration) {
	if slept < shortSleep*d.worker.spin {
		d.spin = min(2*d.spin, d.worker.spin*spinRange)
	} else {
		d.spin = max(d.spin/2, d.worker.spin/spinRange)
	}
}

func arm(src Source) (pending bool) {
	defer contain(src)
	return src.Arm()
}

func disarm(src Source) {
	defer contain(src)
	src.Disarm()
}
