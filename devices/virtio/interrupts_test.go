package virtio_test

import (
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/test/holdings"
)

func TestMSIX(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	irqs := g.msix(4)
	rings := g.drive(0, 1, 2)
	g.set(spec.ConfigMSIXVector, 3)
	for i, r := range rings {
		r.exchange("x")
		expect(t, g, irqs, i)
	}
	l.function.ConfigChanged()
	expect(t, g, irqs, 3)
	// Queues have no bit in the ISR, a change of the configuration has (4.1.4.5.1).
	if isr := g.read(spec.CapISR, 0, 1); isr != spec.ISRConfig {
		t.Errorf("ISR %#x", isr)
	}
	if isr := g.read(spec.CapISR, 0, 1); isr != 0 {
		t.Errorf("ISR %#x after it was read", isr)
	}

	// Events share a vector, or have none.
	g.set(spec.QueueSelect, 1)
	g.set(spec.QueueMSIXVector, 0)
	rings[1].exchange("x")
	expect(t, g, irqs, 0)
	g.set(spec.QueueSelect, 1)
	g.set(spec.QueueMSIXVector, spec.NoVector)
	g.set(spec.ConfigMSIXVector, spec.NoVector)
	rings[1].exchange("x")
	l.function.ConfigChanged()
	rings[2].exchange("x")
	expect(t, g, irqs, 2)
	none(t, irqs)

	// A reset unmaps all.
	g.set(spec.QueueSelect, 1)
	g.set(spec.QueueMSIXVector, 1)
	g.set(spec.ConfigMSIXVector, 3)
	g.negotiate(plainFeatures)
	unmapped := g.newRing(1, 8, keepVector)
	g.step(driverOK)
	unmapped.exchange("x")
	l.function.ConfigChanged()
	g.newRing(2, 8, 2).exchange("x")
	expect(t, g, irqs, 2)
	none(t, irqs)
	g.read(spec.CapISR, 0, 1)

	// No events before DRIVER_OK.
	g.negotiate(plainFeatures)
	g.set(spec.ConfigMSIXVector, 1)
	l.function.ConfigChanged()
	l.function.Settle()
	none(t, irqs)
	if isr := g.read(spec.CapISR, 0, 1); isr != 0 {
		t.Errorf("ISR %#x before DRIVER_OK", isr)
	}
}

// statusBit says whether the configuration space shows a pending interrupt.
func (g *guest) statusBit() bool { return g.configSpace(6, 1)[0]&8 != 0 }

func TestPin(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	irqs := g.interrupts(client.IRQINTx, 1)
	unmask := func() {
		t.Helper()
		if err := g.dev.UnmaskIRQ(g.ctx, client.IRQINTx, 0, 1); err != nil {
			t.Fatal(err)
		}
	}
	rings := g.drive(0, 1)
	for i, r := range rings {
		r.exchange("x")
		expect(t, g, irqs, 0)
		if !g.statusBit() {
			t.Error("the status register does not show the interrupt")
		}
		if isr := g.read(spec.CapISR, 0, 1); isr != spec.ISRQueue {
			t.Errorf("ISR %#x for queue %d", isr, i)
		}
		if g.statusBit() {
			t.Error("reading the ISR does not lower the pin")
		}
		unmask()
	}
	none(t, irqs)

	// The pin stays up until all was read, and comes again if it was not.
	rings[0].exchange("x")
	expect(t, g, irqs, 0)
	unmask()
	expect(t, g, irqs, 0)
	l.function.ConfigChanged()
	if isr := g.read(spec.CapISR, 0, 4); isr != spec.ISRQueue|spec.ISRConfig {
		t.Errorf("ISR %#x in 4 bytes", isr)
	}
	unmask()
	none(t, irqs)

	// A reset lowers it.
	rings[1].exchange("x")
	expect(t, g, irqs, 0)
	g.reset()
	if isr := g.read(spec.CapISR, 0, 1); isr != 0 || g.statusBit() {
		t.Errorf("ISR %#x, pin %v after a reset", isr, g.statusBit())
	}
	unmask()
	none(t, irqs)
}

func TestFromPinToMSIX(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	rings := g.drive(1)
	rings[0].exchange("x") // nobody listens: it is the pin's
	if !g.statusBit() {
		t.Error("the pin is not up")
	}
	irqs := g.msix(4)
	if g.statusBit() {
		t.Error("the pin is up with MSI-X")
	}
	rings[0].exchange("x")
	expect(t, g, irqs, 1)
	if err := irqs.Close(g.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.dev.DisableIRQ(g.ctx, client.IRQMSIX); err != nil {
		t.Fatal(err)
	}
	if isr := g.read(spec.CapISR, 0, 1); isr != spec.ISRQueue {
		t.Errorf("ISR %#x", isr)
	}
}

func TestVectorWithoutEventfd(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	irqs := g.interrupts(client.IRQMSIX, 1) // of four
	rings := g.drive(0, 1)
	rings[1].exchange("nobody hears")
	rings[0].exchange("x")
	expect(t, g, irqs, 0)
	none(t, irqs)
}

func TestConfiguration(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	generation := func() uint64 { return g.get(spec.ConfigGeneration) }
	l.echo.WriteConfig(0, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	first := generation()
	for _, c := range []struct {
		off, n int
		want   uint64
	}{{0, 1, 1}, {1, 1, 2}, {2, 2, 0x0403}, {4, 4, 0x08070605}, {2, 8, 0x0a09080706050403}, {8, 4, 0x0a09}, {10, 2, 0}, {0xff8, 8, 0}} {
		if got := g.read(spec.CapDevice, c.off, c.n); got != c.want {
			t.Errorf("%d bytes at %d: %#x, want %#x", c.n, c.off, got, c.want)
		}
	}
	if generation() != first {
		t.Error("the generation changes with nothing")
	}
	// A change shows in the generation once a value was read that may be torn.
	for i := range 300 {
		before := generation()
		l.echo.WriteConfig(3, []byte{byte(i), byte(i + 1)})
		if now := generation(); now != before {
			t.Error("the generation changes before anything was read")
		}
		g.read(spec.CapDevice, 0, 1)
		now := generation()
		if now == before {
			t.Fatalf("change %d does not show", i)
		}
		g.read(spec.CapDevice, 3, 2)
		if generation() != now {
			t.Error("the generation changes twice")
		}
	}
	// The driver writes as far as there is something.
	g.write(spec.CapDevice, 8, 4, 0x44332211)
	g.write(spec.CapDevice, 10, 2, 0xffff)
	g.write(spec.CapDevice, 0, 1, 0x77)
	if got := g.read(spec.CapDevice, 8, 4); got != 0x2211 {
		t.Errorf("%#x", got)
	}
	if got := g.read(spec.CapDevice, 0, 1); got != 0x77 {
		t.Errorf("%#x", got)
	}
	// The generation goes on over a reset.
	before := generation()
	g.drive(1)
	g.reset()
	if now := generation(); now != before {
		t.Errorf("generation %d after a reset, %d before", now, before)
	}
}

func TestNoConfiguration(t *testing.T) {
	holdings.CheckLeaks(t)
	eng := newLab(t, virtio.Config{}).engine
	f, err := virtio.New(virtio.Config{Type: 4, Queues: 1}, newEcho(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	l := serveFunction(t, eng, f)
	g := l.attach(t)
	if c, ok := g.caps[spec.CapDevice]; ok {
		t.Errorf("%+v", c)
	}
	g.caps[spec.CapDevice] = spec.Capability{Offset: 0x2000}
	g.write(spec.CapDevice, 0, 4, 1)
	if got := g.read(spec.CapDevice, 0, 4); got != 0 {
		t.Errorf("%#x", got)
	}
}

// A driver that resets the device at once, before that has begun, finds nothing pending.
func TestResetTakesBackWhatIsPending(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	g.negotiate(plainFeatures)
	release := l.function.Hold()
	g.step(driverOK)
	l.function.ConfigChanged()
	g.set(spec.DeviceStatus, 0)
	release()
	until(t, "the reset", func() bool { return g.status() == 0 })
	if g.statusBit() {
		t.Error("the pin is up after a reset")
	}
	if isr := g.read(spec.CapISR, 0, 1); isr != 0 {
		t.Errorf("ISR %#x after a reset", isr)
	}
}
