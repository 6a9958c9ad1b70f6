package virtio_test

import (
	"errors"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/test/holdings"
)

const (
	ack      = spec.StatusAcknowledge
	driver   = spec.StatusDriver
	featOK   = spec.StatusFeaturesOK
	driverOK = spec.StatusDriverOK
	broken   = spec.StatusNeedsReset
	failed   = spec.StatusFailed
)

func TestStatus(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{Features: allFeatures &^ (1 << 5)})
	g := l.attach(t)
	type step struct {
		write, want spec.Status
	}
	for _, c := range []struct {
		name     string
		features uint64
		refuse   uint64 // by the device
		steps    []step
		calls    string
	}{
		{"the usual way", plainFeatures, 0, []step{
			{ack, ack}, {ack | driver, ack | driver}, {ack | driver | featOK, ack | driver | featOK},
			{ack | driver | featOK | driverOK, ack | driver | featOK | driverOK},
		}, "start(VERSION_1 RING_RESET)"},
		{"one bit at a time", plainFeatures, 0, []step{
			{ack, ack}, {driver, ack | driver}, {featOK, ack | driver | featOK}, {driverOK, ack | driver | featOK | driverOK},
		}, "start(VERSION_1 RING_RESET)"},
		{"all at once", spec.FeatureVersion1, 0, []step{
			{ack | driver | featOK | driverOK, ack | driver | featOK | driverOK},
		}, "start(VERSION_1)"},
		{"features that were not offered", plainFeatures | 1<<5, 0, []step{{ack | driver | featOK, ack | driver}}, ""},
		{"without VERSION_1", spec.FeatureRingReset, 0, []step{{ack | driver | featOK, ack | driver}}, ""},
		{"no features", 0, 0, []step{{ack | driver | featOK, ack | driver}}, ""},
		{"features that the device refuses", plainFeatures | 1, 1, []step{{ack | driver | featOK, ack | driver}}, ""},
		{"DRIVER_OK without features", plainFeatures, 0, []step{{ack | driver | driverOK, ack | driver}}, ""},
		{"DRIVER_OK with refused features", 0, 0, []step{{ack | driver | featOK | driverOK, ack | driver}}, ""},
		{"bits that are the device's or nobody's", plainFeatures, 0, []step{{0x70, 0}, {0x70 | ack, ack}}, ""},
		{"bits stay", plainFeatures, 0, []step{{ack | driver, ack | driver}, {ack, ack | driver}}, ""},
		{"failed early", plainFeatures, 0, []step{{ack | driver | failed, ack | driver | failed}}, ""},
		{"failed late", plainFeatures, 0, []step{
			{ack | driver | featOK | driverOK, ack | driver | featOK | driverOK},
			{failed, ack | driver | featOK | driverOK | failed},
		}, "start(VERSION_1 RING_RESET) stop"},
		{"failed at once", plainFeatures, 0, []step{
			{ack | driver | featOK | driverOK | failed, ack | driver | featOK | driverOK | failed},
		}, ""},
	} {
		g.reset()
		l.echo.calls()
		l.echo.refuse.Store(c.refuse)
		g.accept(c.features)
		for i, s := range c.steps {
			g.set(spec.DeviceStatus, uint64(s.write))
			if got := g.status(); got != s.want {
				t.Errorf("%s, step %d: %v, want %v", c.name, i, got, s.want)
			}
			l.function.Settle()
		}
		if got := l.echo.calls(); got != c.calls {
			t.Errorf("%s: %q, want %q", c.name, got, c.calls)
		}
	}
}

func TestFeaturesCanBeTriedAgain(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{Features: spec.FeatureEventIdx})
	g := l.attach(t)
	g.reset()
	g.step(ack | driver)
	g.accept(spec.FeatureVersion1 | spec.FeatureRingPacked)
	g.step(featOK)
	if s := g.status(); s != ack|driver {
		t.Fatal(s)
	}
	g.accept(spec.FeatureVersion1 | spec.FeatureEventIdx)
	g.step(featOK)
	if s := g.status(); s != ack|driver|featOK {
		t.Fatal(s)
	}
	g.accept(spec.FeatureVersion1) // too late
	g.newRing(1, 4, spec.NoVector)
	g.step(driverOK)
	l.function.Settle()
	if got, want := l.echo.calls(), "start(EVENT_IDX VERSION_1) +1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestQueuesBeforeAndAfterDriverOK(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	g.negotiate(spec.FeatureVersion1)
	before := g.newRing(1, 8, 1)
	before.offer([]byte("early"))
	before.notify()
	l.function.Settle()
	if got := l.echo.calls(); got != "" {
		t.Errorf("%q before DRIVER_OK", got)
	}
	if _, ok := before.taken(); ok {
		t.Error("something was used before DRIVER_OK")
	}
	g.step(driverOK)
	if got := string(before.answer()); got != "ylrae" {
		t.Errorf("%q", got)
	}
	after := g.newRing(2, 8, 2)
	after.exchange("late")
	before.exchange("still there")
	if got, want := l.echo.calls(), "start(VERSION_1) +1 +2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestStartThatFails(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	l.echo.failStart.Store(&errRefused)
	rings := g.drive(0, 1)
	until(t, "DEVICE_NEEDS_RESET", func() bool { return g.status().Has(broken) })
	rings[1].offer([]byte("x"))
	rings[1].notify()
	l.function.Settle()
	if _, ok := rings[1].taken(); ok {
		t.Error("a queue runs")
	}
	l.echo.failStart.Store(nil)
	g.reset()
	if got, want := l.echo.calls(), "start(VERSION_1 RING_RESET) stop"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	g.drive(1)[0].exchange("again")
}

func TestNeedsReset(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	l.function.NeedsReset(errors.New("nobody is there"))
	l.function.ConfigChanged()
	g := l.attach(t)
	irqs := g.msix(4)
	l.function.NeedsReset(errors.New("no driver is there"))
	if s := g.status(); s != 0 {
		t.Error(s)
	}
	rings := g.drive(1)
	g.set(spec.ConfigMSIXVector, 3)
	l.function.NeedsReset(errors.New("something broke"))
	l.function.NeedsReset(errors.New("and again"))
	expect(t, g, irqs, 3)
	if s := g.status(); s != ack|driver|featOK|driverOK|broken {
		t.Error(s)
	}
	rings[0].exchange("what is not broken goes on")
	expect(t, g, irqs, 1)
	none(t, irqs)
	g.reset()
	l.function.NeedsReset(errors.New("too late"))
	if s := g.status(); s != 0 {
		t.Error(s)
	}
}
