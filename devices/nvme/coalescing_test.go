package nvme

import (
	"sync"
	"testing"
	"time"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/irq"
)

// fakeTime is a clock that the test moves.
type fakeTime struct {
	mu     sync.Mutex
	now    time.Time
	alarms []*fakeAlarm
}

type fakeAlarm struct {
	t   *fakeTime
	f   func()
	at  time.Time
	set bool
}

func (t *fakeTime) Now() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

func (t *fakeTime) AfterFunc(d time.Duration, f func()) alarm {
	a := &fakeAlarm{t: t, f: f}
	t.mu.Lock()
	t.alarms = append(t.alarms, a)
	t.mu.Unlock()
	a.Reset(d)
	return a
}

func (a *fakeAlarm) Reset(d time.Duration) bool {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	old := a.set
	a.at, a.set = a.t.now.Add(d), true
	return old
}

func (a *fakeAlarm) Stop() bool {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	old := a.set
	a.set = false
	return old
}

// set is how many alarms will come.
func (t *fakeTime) set() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.alarms {
		if a.set {
			n++
		}
	}
	return n
}

func (t *fakeTime) advance(d time.Duration) {
	t.mu.Lock()
	t.now = t.now.Add(d)
	var due []func()
	for _, a := range t.alarms {
		if a.set && !a.at.After(t.now) {
			a.set = false
			due = append(due, a.f)
		}
	}
	t.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// coalescingRig is a drive with interrupts whose time the test moves. Nothing is served but
// by serve.
type coalescingRig struct {
	*guest
	worker *manualWorker
	time   *fakeTime
	irqs   []func() uint64
	data   uint64
}

func newCoalescingRig(t *testing.T, index irq.Index) *coalescingRig {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, queues: 4, workers: func() worker { return w }})
	c := &coalescingRig{guest: g, worker: w, time: &fakeTime{now: time.Unix(1e9, 0)}}
	g.c.host.interrupts.coalescing.clock = c.time
	n := 5
	if index == irq.MSI {
		n = g.c.messages()
	}
	c.irqs = g.listen(index, n)
	g.enable()
	c.data = g.alloc(1)
	return c
}

func (c *coalescingRig) coalesce(entries, units uint32) {
	c.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatInterruptCoalescing, CDW11: entries - 1 | units<<8})
}

func (c *coalescingRig) vector(v uint32, disable bool) {
	e := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatInterruptVector, CDW11: v}
	if disable {
		e.CDW11 |= coalescingDisable
	}
	c.must(e)
}

// serve has n commands served in one round.
func (c *coalescingRig) serve(q *testQueue, n int) {
	c.t.Helper()
	old := q.tail
	for range n {
		q.put(rw(spec.NVMRead, 1, 0, 8, c.data, 0))
	}
	q.ringTail(old)
	if got := c.worker.poll(); got != n {
		c.t.Fatalf("%d commands served, not %d", got, n)
	}
	q.reap()
}

func (c *coalescingRig) want(vector int, n uint64, when string) {
	c.t.Helper()
	if got := c.irqs[vector](); got != n {
		c.t.Errorf("%s: %d interrupts, not %d", when, got, n)
	}
}

const ms = time.Millisecond

func TestCoalescingWaitsForEntriesOrTime(t *testing.T) {
	for _, index := range []irq.Index{irq.MSIX, irq.MSI} {
		c := newCoalescingRig(t, index)
		q := c.createQueue(1, 64)
		c.serve(q, 1)
		c.want(1, 1, "without coalescing")
		c.coalesce(4, 10)
		c.serve(q, 1)
		c.serve(q, 2)
		c.want(1, 0, "3 of 4 entries")
		c.serve(q, 1)
		c.want(1, 1, "4 entries")
		c.serve(q, 20)
		c.want(1, 1, "more entries in one round")
		c.time.advance(ms)
		c.want(1, 0, "the alarm of what was signalled")
		c.serve(q, 1)
		c.time.advance(ms / 2)
		c.serve(q, 1)
		c.time.advance(ms/2 - 1)
		c.want(1, 0, "just before the time")
		c.time.advance(1)
		c.want(1, 1, "1 ms after the first entry")
		if n := c.time.set(); n != 0 {
			t.Errorf("%d alarms while nothing waits", n)
		}
	}
}

// The alarm of entries whose interrupt came early is not the end of the time of later ones.
func TestCoalescingTimeBeginsWithTheFirstEntry(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q := c.createQueue(1, 64)
	c.coalesce(4, 10)
	c.serve(q, 1)
	c.time.advance(ms / 2)
	c.serve(q, 3)
	c.want(1, 1, "4 entries")
	c.serve(q, 1)
	c.time.advance(ms / 2)
	c.want(1, 0, "1 ms after the entries before")
	c.time.advance(ms / 2)
	c.want(1, 1, "1 ms after the first entry")
}

func TestCoalescingIsOffUnlessBothAreSet(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q := c.createQueue(1, 64)
	for _, s := range [][2]uint32{{1, 0}, {1, 10}, {8, 0}} {
		c.coalesce(s[0], s[1])
		c.serve(q, 1)
		c.want(1, 1, "no delay")
	}
	if n := len(c.time.alarms); n != 0 {
		t.Errorf("%d alarms", n)
	}
}

func TestCoalescingDisabledForAVector(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q1, q2 := c.createQueue(1, 64), c.createQueue(2, 64)
	c.coalesce(4, 10)
	c.vector(1, true)
	c.serve(q1, 1)
	c.want(1, 1, "disabled")
	c.serve(q2, 1)
	c.want(2, 0, "another vector")
	c.vector(2, true)
	c.want(2, 1, "disabled while an entry waits")
	c.vector(1, false)
	c.serve(q1, 1)
	c.want(1, 0, "enabled again")
	c.coalesce(1, 0)
	c.want(1, 1, "switched off while an entry waits")
}

// Queues may share a vector: its entries are counted together.
func TestCoalescingIsPerVector(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q1, q2 := c.createQueue(1, 64), c.newQueue(2, 64)
	c.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q2.cq, CDW10: 2 | 63<<16, CDW11: 3 | 1<<16})
	c.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q2.sq, CDW10: 2 | 63<<16, CDW11: 1 | 2<<16})
	c.coalesce(4, 10)
	c.serve(q1, 2)
	c.serve(q2, 1)
	c.want(1, 0, "3 of 4 entries")
	c.serve(q2, 1)
	c.want(1, 1, "2 entries in each of two queues")
}

func TestCoalescingNeverDelaysTheAdminQueue(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	c.coalesce(256, 255)
	c.interrupted("Set Features", c.irqs[0])
	for range 5 {
		c.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatArbitration})
		c.interrupted("the admin queue", c.irqs[0])
	}
}

// Fewer entries fill the queue than are to be waited for.
func TestCoalescingOfASmallQueue(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q := c.createQueue(1, 3)
	c.coalesce(256, 255)
	c.serve(q, 1)
	c.want(1, 0, "room for one more")
	c.serve(q, 1)
	c.want(1, 1, "as many as fit")
}

func TestDelayedInterruptsComeBeforeTheDataPathIsHeld(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q := c.createQueue(1, 64)
	c.coalesce(4, 10)
	c.serve(q, 1)
	c.lock(true)
	c.want(1, 1, "held")
	c.lock(false)
	c.time.advance(ms)
	c.want(1, 0, "later")
}

func TestResetForgetsDelayedInterrupts(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q := c.createQueue(1, 64)
	c.coalesce(4, 10)
	c.serve(q, 1)
	c.disable()
	if n := c.time.set(); n != 0 {
		t.Errorf("%d alarms after the reset", n)
	}
	c.time.advance(ms)
	c.want(1, 0, "after the reset")
	c.enable()
	q = c.createQueue(1, 64)
	c.serve(q, 1)
	c.want(1, 1, "the reset has switched coalescing off")
}

// A host that polls has written the doorbell before the round ends.
func TestNoInterruptForAHostThatPolls(t *testing.T) {
	c := newCoalescingRig(t, irq.MSIX)
	q := c.createQueue(1, 64)
	ahead := func() {
		dma.Store32(c.c.doorbells.page, cqDoorbell(1), (q.head+1)%q.size)
		c.serve(q, 1)
	}
	for range pollHabit {
		ahead()
		c.want(1, 1, "not a habit yet")
	}
	for range 10 {
		ahead()
		c.want(1, 0, "it polls")
	}
	before := c.c.InterruptStats()
	if before.Suppressed != 10 {
		t.Errorf("%+v", before)
	}
	c.serve(q, 1) // consumes after the round
	c.want(1, 1, "it does not poll any more")
	ahead()
	c.want(1, 1, "no habit again")
	if n := c.c.InterruptStats(); n.Raised != before.Raised+2 || n.Suppressed != 10 || n.Delayed != 0 {
		t.Errorf("%+v, and before %+v", n, before)
	}
}
