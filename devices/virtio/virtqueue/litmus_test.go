package virtqueue

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// meeting lets two goroutines start each round at the same moment.
type meeting struct{ came atomic.Int64 }

func (m *meeting) wait(round int) {
	m.came.Add(1)
	for spins := 0; m.came.Load() < int64(2*(round+1)); spins++ {
		if spins > 2000 {
			runtime.Gosched()
		}
	}
}

// linger takes a little time: the rounds are to meet in all ways.
func linger(n int) {
	for range n {
	}
}

// race runs device and driver at the same moment in each round, then check alone.
func race(rounds int, device, driver func(round int), check func(round int) bool) bool {
	var start, end, checked meeting
	var failed atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < rounds && !failed.Load(); i++ {
			start.wait(i)
			linger(40)
			device(i)
			end.wait(i)
			checked.wait(i)
		}
	}()
	for i := 0; i < rounds && !failed.Load(); i++ {
		start.wait(i)
		linger(i % 80)
		driver(i)
		end.wait(i)
		failed.Store(!check(i))
		checked.wait(i)
	}
	<-done
	return !failed.Load()
}

// rounds finds some missing fences on two idle cores; all of them take -steps 150000.
func rounds() int {
	if testing.Short() {
		return 300
	}
	return max(5000, *modelSteps)
}

func layouts(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, packed := range []bool{false, true} {
		for _, event := range []bool{false, true} {
			t.Run(fmt.Sprintf("packed=%v,event=%v", packed, event), func(t *testing.T) {
				f(t, Config{Size: 8, Packed: packed, EventIdx: event})
			})
		}
	}
}

// The device publishes while the driver asks for an interrupt and looks: either the driver
// sees it, or the device interrupts. On both sides that takes a fence between a store and a
// load.
func TestPublishAgainstADriverThatGoesToSleep(t *testing.T) {
	layouts(t, func(t *testing.T, cfg Config) {
		s, q := newSplit(t, cfg)
		d := &tightDriver{s: s, cfg: s.cfg}
		chains := make([]Chain, 1)
		var interrupt, seen bool
		prepare := func(round int) {
			d.quiet()
			d.offer(round)
			if n, err := q.Take(chains); n != 1 {
				t.Errorf("took %d, %v", n, err)
			}
			q.Push(&chains[0], 0)
		}
		prepare(0)
		ok := race(rounds(),
			func(int) { interrupt = q.Publish() },
			func(int) { d.want(); seen = d.poll() },
			func(round int) bool {
				if !interrupt && !seen {
					return false
				}
				if !seen {
					d.poll()
				}
				prepare(round + 1)
				return true
			})
		if !ok {
			t.Error("the driver sleeps and the device does not interrupt it")
		}
	})
}

// The driver makes a chain available while the device arms.
func TestArmAgainstADriverThatOffers(t *testing.T) {
	layouts(t, func(t *testing.T, cfg Config) {
		s, q := newSplit(t, cfg)
		d := &tightDriver{s: s, cfg: s.cfg}
		chains := make([]Chain, 1)
		var kick, pending bool
		q.Disarm()
		ok := race(rounds(),
			func(int) { pending = q.Arm() },
			func(round int) { kick = d.offer(round) },
			func(int) bool {
				if !kick && !pending {
					return false
				}
				q.Disarm()
				if n, err := q.Take(chains); n != 1 {
					t.Errorf("took %d, %v", n, err)
				}
				q.Push(&chains[0], 0)
				q.Publish()
				d.poll()
				return true
			})
		if !ok {
			t.Error("the device sleeps and the driver does not notify it")
		}
	})
}

// What one Publish shows is seen all at once.
func TestPublishShowsAllAtOnce(t *testing.T) {
	layouts(t, func(t *testing.T, cfg Config) {
		s, q := newSplit(t, cfg)
		d := &tightDriver{s: s, cfg: s.cfg}
		chains := make([]Chain, 8)
		offered := 0
		prepare := func() {
			for range len(chains) {
				d.offer(offered)
				offered++
			}
			if n, err := q.Take(chains); n != len(chains) {
				t.Errorf("took %d, %v", n, err)
			}
			for i := range chains {
				q.Push(&chains[i], 0)
			}
		}
		prepare()
		var whole bool
		ok := race(rounds(),
			func(int) { q.Publish() },
			func(int) {
				before := d.seen
				for !d.poll() {
					runtime.Gosched()
				}
				whole = d.seen-before == len(chains)
			},
			func(int) bool {
				if whole {
					prepare()
				}
				return whole
			})
		if !ok {
			t.Error("the driver saw a part of it")
		}
	})
}

// quiet asks for no interrupts.
func (d *tightDriver) quiet() {
	if d.cfg.Packed {
		dma.Store32(d.s.g.at(d.cfg.Driver, 4), 0, spec.EventWord(0, spec.EventDisable))
		return
	}
	ring := d.s.g.at(d.cfg.Driver, int(spec.AvailBytes(d.cfg.Size)))
	if d.cfg.EventIdx {
		dma.Store16(ring, spec.UsedEventOffset(d.cfg.Size), uint16(d.seen-1))
	} else {
		dma.Store16(ring, spec.AvailFlags, spec.AvailNoInterrupt)
	}
}
