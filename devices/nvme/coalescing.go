package nvme

import (
	"sync/atomic"
	"time"

	"vfiouser/devices/nvme/spec"
)

// coalescing delays the interrupts of I/O completion queues as the host has asked for
// (Base 1.4, 7.5 and 5.21.1.8): until so many entries were posted for a vector, or so much
// time has passed since the first of them. While nothing waits it costs nothing. The pin
// is not delayed: it follows the queues. The admin queue never is.
type coalescing struct {
	clock    timeSource
	settings atomic.Uint64 // least entries of an interrupt | 100 µs << 32; 0: off
	vectors  []delay
}

// timeSource is the clock of the delays.
type timeSource interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) alarm
}

// alarm is a time.Timer of AfterFunc.
type alarm interface {
	Reset(d time.Duration) bool
	Stop() bool
}

type systemTime struct{}

func (systemTime) Now() time.Time { return time.Now() }

func (systemTime) AfterFunc(d time.Duration, f func()) alarm { return time.AfterFunc(d, f) }

// delay is that of one vector. Any goroutine that posts to its queues adds to it.
type delay struct {
	exempt  atomic.Bool   // the feature Interrupt Vector Configuration says so (CD)
	waiting atomic.Uint32 // entries posted since the last interrupt
	due     atomic.Int64  // when the interrupt has to come, ns since 1970
	armed   atomic.Bool   // the alarm will come
	alarm   atomic.Pointer[alarm]
}

const coalescingUnit = 100 * time.Microsecond

// coalesce follows the features.
func (h *host) coalesce() {
	c := &h.interrupts.coalescing
	v := h.number(spec.FeatInterruptCoalescing)
	entries, units := v&0xff+1, v>>8&0xff
	settings := uint64(entries) | uint64(units)<<32
	if entries == 1 || units == 0 { // no delay
		settings = 0
	}
	c.settings.Store(settings)
	for i := range c.vectors {
		exempt := h.value(spec.FeatInterruptVector, uint32(i)).Number&coalescingDisable != 0
		c.vectors[i].exempt.Store(exempt)
		if exempt || settings == 0 {
			h.interrupts.flush(uint16(i))
		}
	}
}

// delayed says whether the interrupt for n entries that were posted to a queue is not to be
// raised yet.
func (i *interrupts) delayed(q *compQueue, n uint32) bool {
	c := &i.coalescing
	s := c.settings.Load()
	if s == 0 || q.id == 0 {
		return false
	}
	d := &c.vectors[q.vector]
	if d.exempt.Load() {
		return false
	}
	waiting := d.waiting.Add(n)
	// A queue that cannot hold so many must not wait for them.
	if waiting >= min(uint32(s), q.size-1) {
		d.waiting.Store(0)
		return false
	}
	if waiting == n { // the first ones
		after := time.Duration(s>>32) * coalescingUnit
		d.due.Store(c.clock.Now().Add(after).UnixNano())
		if !d.armed.Swap(true) {
			i.arm(q.vector, after)
		}
	}
	i.counts.delayed.Add(1)
	return true
}

// arm has expire called, for the one who has set armed. The alarm is left alone if the
// interrupt is raised before, and finds out then what there is to wait for.
func (i *interrupts) arm(vector uint16, after time.Duration) {
	c := &i.coalescing
	d := &c.vectors[vector]
	if a := d.alarm.Load(); a != nil {
		(*a).Reset(after)
		return
	}
	a := c.clock.AfterFunc(after, func() { i.expire(vector) })
	d.alarm.Store(&a)
}

func (i *interrupts) expire(vector uint16) {
	c := &i.coalescing
	d := &c.vectors[vector]
	d.armed.Store(false)
	if d.waiting.Load() == 0 {
		return
	}
	if left := time.Duration(d.due.Load() - c.clock.Now().UnixNano()); left > 0 {
		if !d.armed.Swap(true) {
			i.arm(vector, left)
		}
		return
	}
	i.flush(vector)
}

// flush raises what was delayed.
func (i *interrupts) flush(vector uint16) {
	if i.coalescing.vectors[vector].waiting.Swap(0) > 0 {
		i.trigger(vector)
	}
}

// flushAll is flush for all vectors, before the data path is held.
func (i *interrupts) flushAll() {
	for v := range i.coalescing.vectors {
		i.flush(uint16(v))
	}
}

// forgetDelays is for a reset, and for a client that leaves.
func (i *interrupts) forgetDelays() {
	for v := range i.coalescing.vectors {
		d := &i.coalescing.vectors[v]
		d.waiting.Store(0)
		if a := d.alarm.Load(); a != nil && (*a).Stop() {
			d.armed.Store(false)
		}
	}
}
