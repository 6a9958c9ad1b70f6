package virtio_test

import (
	"context"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/test/holdings"
)

func TestQueueReset(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	for _, i := range []int{0, 1} { // by a goroutine, by a worker
		rings := g.drive(0, 1, 2)
		l.function.Settle()
		l.echo.calls()
		r := rings[i]
		r.exchange("before")
		before := [3]uint64{r.desc, r.avail, r.used}
		r.resetQueue()
		if got, want := l.echo.calls(), map[int]string{0: "-0", 1: "-1"}[i]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		// It does nothing now.
		r.offer([]byte("nobody is there"))
		r.notify()
		l.function.Settle()
		if _, ok := r.taken(); ok {
			t.Error("a queue that was reset is used")
		}
		rings[2].exchange("the others go on")

		// It may go on with what it had: size, addresses and vector are still there.
		g.check([]access{
			{"select", spec.QueueSelect, 2, uint64(i), uint64(i)},
			{name: "size", off: spec.QueueSize, want: maxSize},
			{name: "vector", off: spec.QueueMSIXVector, want: uint64(i)},
			{name: "descriptor area", off: spec.QueueDesc, want: before[0]},
			{name: "driver area", off: spec.QueueDriver, want: before[1]},
			{name: "device area", off: spec.QueueDevice, want: before[2]},
			{"enable", spec.QueueEnable, 2, 1, 1},
			{name: "not in reset", off: spec.QueueReset, want: 0},
		})
		if got := string(r.answer()); got != "ereht si ydobon" {
			t.Errorf("%q", got)
		}

		// Or with another size elsewhere.
		r.resetQueue()
		fresh := g.newRing(i, 4, 0)
		for range 10 {
			fresh.exchange("somewhere else")
		}
		fresh.resetQueue()
		again := g.newRing(i, maxSize, 2)
		again.exchange("and back")
		l.echo.calls()
	}
}

func TestQueueResetInEveryState(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	ask := func() (reset, enabled uint64) {
		t.Helper()
		g.set(spec.QueueReset, 1)
		l.function.Settle()
		return g.get(spec.QueueReset), g.get(spec.QueueEnable)
	}
	check := func(when string, wantEnabled uint64) {
		t.Helper()
		if reset, enabled := ask(); reset != 0 || enabled != wantEnabled {
			t.Errorf("%s: reset %d, enabled %d", when, reset, enabled)
		}
	}
	check("before anything", 0)
	g.negotiate(spec.FeatureVersion1)
	r := g.newRing(0, 8, 0)
	check("not negotiated", 1)
	g.step(driverOK)
	check("not negotiated, running", 1)
	r.exchange("still there")

	g.negotiate(plainFeatures)
	g.set(spec.QueueSelect, 0)
	check("not enabled", 0)
	g.newRing(0, 8, 0)
	check("before DRIVER_OK", 0)
	r = g.newRing(0, 8, 0)
	g.step(driverOK)
	r.exchange("x")
	g.set(spec.QueueReset, 2) // not a reset
	r.exchange("x")
	check("running", 0)
	check("twice", 0)
	g.set(spec.QueueSelect, 3)
	g.set(spec.QueueReset, 1)
	if got := g.get(spec.QueueReset); got != 0 {
		t.Errorf("queue that is not there: %d", got)
	}
	r = g.newRing(0, 8, 0)
	r.exchange("x")
	g.step(failed)
	check("failed", 0)
	l.function.Settle()
	g.reset()
	g.drive(0)[0].exchange("after all that")
}

// TestResetsTakeTheirTime has a queue that cannot be stopped at once.
func TestResetsTakeTheirTime(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	entered, release := make(chan struct{}), make(chan struct{})
	slow := virtio.Handler(func(_ context.Context, c *virtqueue.Chain) uint32 {
		entered <- struct{}{}
		<-release
		return reflect(c)
	})
	l.echo.handle.Store(&slow)
	block := func() *ring {
		t.Helper()
		r := g.drive(0)[0]
		r.offer([]byte("slow"))
		r.notify()
		<-entered
		return r
	}

	// A queue's reset: until it is done it cannot be enabled, and reads 1.
	block()
	g.set(spec.QueueReset, 1)
	for range 3 {
		g.check([]access{
			{name: "in reset", off: spec.QueueReset, want: 1},
			{"too early to enable", spec.QueueEnable, 2, 1, 0},
			{"asked again", spec.QueueReset, 2, 1, 1},
			{"asked to stop", spec.QueueReset, 2, 0, 1},
		})
	}
	release <- struct{}{}
	until(t, "the reset of the queue", func() bool { return g.get(spec.QueueReset) == 0 })

	// A device reset: the status does not read 0 until it is done.
	block()
	running := g.status()
	g.set(spec.DeviceStatus, 0)
	for range 3 {
		if s := g.status(); s != running {
			t.Errorf("%v while the reset is pending, want %v", s, running)
		}
		g.set(spec.DeviceStatus, 0)
	}
	// The registers are those of a device that is reset, though.
	g.check([]access{{name: "config vector", off: spec.ConfigMSIXVector, want: spec.NoVector}, {name: "enabled", off: spec.QueueEnable, want: 0}})
	release <- struct{}{}
	until(t, "the reset", func() bool { return g.status() == 0 })

	// A driver that does not wait, as some firmware, is served all the same.
	block()
	l.echo.calls()
	g.set(spec.DeviceStatus, 0)
	g.set(spec.DeviceStatus, uint64(ack|driver))
	g.accept(plainFeatures)
	g.step(featOK)
	if s := g.status(); s != ack|driver|featOK {
		t.Fatal(s)
	}
	hasty := g.newRing(1, 8, 1)
	g.step(driverOK)
	hasty.offer([]byte("hasty"))
	hasty.notify()
	if _, ok := hasty.taken(); ok {
		t.Error("a queue runs before the reset is done")
	}
	release <- struct{}{}
	if got := string(hasty.answer()); got != "ytsah" {
		t.Errorf("%q", got)
	}
	if got, want := l.echo.calls(), "-0 stop start(VERSION_1 RING_RESET) +1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	// Resets that come while one is pending.
	block()
	for range 5 {
		g.set(spec.DeviceStatus, 0)
		g.set(spec.DeviceStatus, uint64(ack))
	}
	g.set(spec.DeviceStatus, 0)
	release <- struct{}{}
	until(t, "the reset", func() bool { return g.status() == 0 })
}

// TestOrderOfRegistersAndCommands has a driver enable a queue and send a command about it
// at once, as Linux does when it resizes a ring.
func TestOrderOfRegistersAndCommands(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	running := virtio.Handler(func(_ context.Context, c *virtqueue.Chain) uint32 {
		answer := "stopped"
		if l.echo.queue(1) != nil {
			answer = "running"
		}
		return uint32(copy(c.Writable[0], answer))
	})
	l.echo.handle.Store(&running)
	rings := g.drive(0, 1)
	ask := func() string {
		t.Helper()
		rings[0].offer([]byte("?"))
		rings[0].notify()
		return string(rings[0].answer())
	}
	for i := range 200 {
		if got := ask(); got != "running" {
			t.Fatalf("round %d: %s after it was enabled", i, got)
		}
		g.set(spec.QueueSelect, 1)
		g.set(spec.QueueReset, 1)
		if got := ask(); got != "stopped" {
			t.Fatalf("round %d: %s after it was reset", i, got)
		}
		rings[1].enable(1)
	}
}
