package virtio_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// TestBrokenRings has a driver break the rules of a ring: it is told so, its other queues
// go on, and so does the device after a reset.
func TestBrokenRings(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	irqs := g.msix(4)
	for name, damage := range map[string]func(r *ring){
		"head outside of the table": func(r *ring) { r.publish(uint16(r.size)) },
		"loop": func(r *ring) {
			r.put(0, spec.Desc{Addr: r.in, Len: 1, Flags: spec.DescNext, Next: 0})
			r.publish(0)
		},
		"buffer outside of memory": func(r *ring) {
			r.put(0, spec.Desc{Addr: guestBase + guestSize, Len: 1})
			r.publish(0)
		},
		"index that jumps": func(r *ring) { r.availIndex += 1000; r.publish(0) },
	} {
		for queue := range 2 { // by a goroutine, by a worker
			rings := g.drive(queue, 2)
			g.set(spec.ConfigMSIXVector, 3)
			rings[0].exchange("good")
			expect(t, g, irqs, queue)
			damage(rings[0])
			rings[0].notify()
			expect(t, g, irqs, 3)
			if s := g.status(); s != ack|driver|featOK|driverOK|broken {
				t.Errorf("%s: %v", name, s)
			}
			rings[1].exchange("the other queue")
			expect(t, g, irqs, 2)
			rings[0].notify()
			if queue == 1 { // a queue that is reset alone works again
				rings[0].resetQueue()
				rings[0].enable(1)
				rings[0].exchange("good again")
				expect(t, g, irqs, 1)
			}
			none(t, irqs)
		}
	}
	g.drive(1)[0].exchange("after all that")

	// What the device finds out too late is not held against the next driver.
	old := l.echo.queue(1)
	r := g.drive(1)[0]
	old.Fail(errors.New("late"))
	r.exchange("x")
	if s := g.status(); s.Has(broken) {
		t.Error(s)
	}
}

// TestRingsThatCannotBe has a driver enable queues where no ring can be.
func TestRingsThatCannotBe(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attachBare(t)
	readOnly := g.mem.At(guestBase)
	readOnly.Prot = codec.DMAFlagRead
	if err := g.dev.MapDMA(g.ctx, readOnly); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		queue   int
		change  func(r *ring)
		refused bool
	}{
		"not aligned":             {1, func(r *ring) { r.desc++ }, true},
		"not aligned, by message": {0, func(r *ring) { r.used += 2 }, true},
		"end of the addresses":    {1, func(r *ring) { r.avail = ^uint64(0) - 1 }, true},
		"used ring is read-only":  {1, func(r *ring) {}, true},
		// There is no telling whether memory will come.
		"outside of memory":             {1, func(r *ring) { r.desc = 1 << 50 }, false},
		"outside of memory, by message": {0, func(r *ring) { r.avail = 1 << 50 }, false},
	} {
		g.negotiate(plainFeatures)
		r := &ring{g: g, index: c.queue, size: 8, desc: g.alloc(128, 4096), avail: g.alloc(64, 4096), used: g.alloc(128, 4096)}
		c.change(r)
		r.enable(spec.NoVector)
		g.step(driverOK)
		g.write(spec.CapNotify, 4*c.queue, 2, 0)
		if c.refused {
			until(t, name, func() bool { return g.status().Has(broken) })
		} else if l.function.Settle(); g.status().Has(broken) {
			t.Errorf("%s: %v", name, g.status())
		}
	}
}

// TestRandomAccesses has a client do what it likes to all regions, beside a healthy device
// and while its own device works.
func TestRandomAccesses(t *testing.T) {
	holdings.CheckLeaks(t)
	eng, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	healthy := addLab(t, eng, virtio.Config{}).attach(t)
	rings := healthy.drive(0, 1, 2)
	for seed := range uint64(4) {
		l := addLab(t, eng, virtio.Config{Doorbells: virtio.Doorbells(seed % 3)})
		g := l.attach(t)
		g.drive(0, 1, 2)
		rng := rand.New(rand.NewPCG(seed, 0))
		for i := range 3000 {
			if i%500 == 0 { // most of the time it drives the device by chance; help it
				g.drive(rng.IntN(3))
			}
			g.random(rng)
			if i%100 == 0 {
				rings[rng.IntN(3)].exchange("I am well")
			}
		}
		if err := g.dev.Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		g.reset()
		for _, r := range g.drive(0, 1, 2) {
			r.exchange("after all that")
		}
	}
}

// random makes an access of the kind that a hostile driver would.
func (g *guest) random(rng *rand.Rand) {
	g.t.Helper()
	var p [8]byte
	n := 1 << rng.IntN(4)
	for i := range n {
		p[i] = byte(rng.Uint32N(4)) // small values hit more
		if rng.IntN(8) == 0 {
			p[i] = byte(rng.Uint32())
		}
	}
	region, off := client.RegionBAR0, uint64(0)
	switch rng.IntN(10) {
	case 0: // anywhere
		off = rng.Uint64N(0x4000)
	case 1:
		region, off = 4+rng.IntN(2), rng.Uint64N(0x1000)
	case 2: // the window, also where it is small
		region, off = client.RegionConfig, g.window+uint64(rng.IntN(spec.CapPCISize))
	case 3:
		off = uint64(g.caps[spec.CapNotify].Offset) + 4*rng.Uint64N(4)
	case 4: // status: the steps of a driver, mostly
		off, n = spec.DeviceStatus, 1
		p[0] = []byte{0, 1, 3, 0xb, 0xf, 0xf, 0xf, 0x8f}[rng.IntN(8)]
	case 5:
		off = uint64(g.caps[spec.CapDevice].Offset) + rng.Uint64N(16)
	default:
		off = rng.Uint64N(spec.CommonSize)
	}
	var err error
	if rng.IntN(3) == 0 {
		err = g.dev.ReadRegion(g.ctx, region, off, p[:n])
	} else {
		err = g.dev.WriteRegion(g.ctx, region, off, p[:n])
	}
	var refused *codec.Error
	if err != nil && !errors.As(err, &refused) {
		g.t.Fatalf("%d bytes at %#x of region %d: %v", n, off, region, err)
	}
}

// TestPanicOfTheDevice costs the client its session, and not the process.
func TestPanicOfTheDevice(t *testing.T) {
	holdings.CheckLeaks(t)
	eng, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	healthy := addLab(t, eng, virtio.Config{}).attach(t).drive(0, 1, 2)
	for _, where := range []string{"CheckFeatures", "Start", "Stop", "StartQueue", "StopQueue", "Notify", "handler"} {
		d := &panicky{where: where}
		f, err := virtio.New(virtio.Config{Type: 42, Queues: 1, QueueSize: maxSize, Features: allFeatures}, d)
		if err != nil {
			t.Fatal(err)
		}
		l := serveFunction(t, eng, f)
		g := l.attach(t)
		g.provoke()
		select {
		case <-g.dev.Done():
		case <-time.After(patience):
			t.Errorf("a panic in %s costs nothing", where)
		}
		g.leave()
		if err := errors.Join(l.endpoint.Close(), f.Close()); err != nil {
			t.Error(err)
		}
		for _, h := range healthy {
			h.exchange("I am well")
		}
	}
}

// provoke does all that leads a device into its methods; the session may end meanwhile.
func (g *guest) provoke() {
	post := func(off, n int, v uint64) {
		p := []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24), 0, 0, 0, 0}
		_ = g.dev.WriteRegion(g.ctx, client.RegionBAR0, uint64(off), p[:n])
	}
	post(spec.DriverFeatureSelect, 4, 1)
	post(spec.DriverFeature, 4, plainFeatures>>32)
	post(spec.DeviceStatus, 1, uint64(ack|driver|featOK))
	desc := g.alloc(4096, 4096)
	r := &ring{g: g, size: maxSize, desc: desc, avail: g.alloc(4096, 4096), used: g.alloc(4096, 4096), in: g.alloc(4096, 4096), out: g.alloc(4096, 4096)}
	for i, at := range []uint64{r.desc, r.avail, r.used} {
		post(spec.QueueDesc+8*i, 4, at)
	}
	post(spec.QueueEnable, 2, 1)
	r.offer([]byte("x"))
	post(spec.DeviceStatus, 1, uint64(ack|driver|featOK|driverOK))
	until(g.t, "the device", func() bool {
		post(int(g.caps[spec.CapNotify].Offset), 2, 0)
		_, ok := r.taken()
		return ok || g.dev.Err() != nil
	})
	post(spec.DeviceStatus, 1, 0)
}

// panicky is a device with a defect.
type panicky struct {
	where string
	srv   *virtio.Server
}

func (p *panicky) at(where string) {
	if p.where == where {
		panic("defect in " + where)
	}
}

func (p *panicky) ReadConfig(int, []byte)              {}
func (p *panicky) WriteConfig(int, []byte)             {}
func (p *panicky) CheckFeatures(uint64) bool           { p.at("CheckFeatures"); return true }
func (p *panicky) Stop()                               { p.at("Stop") }
func (p *panicky) Notify(int)                          { p.at("Notify") }
func (p *panicky) Start(*virtio.Session, uint64) error { p.at("Start"); return nil }

func (p *panicky) StartQueue(_ int, q *virtio.Queue) {
	p.at("StartQueue")
	if p.where == "Notify" {
		return
	}
	p.srv = virtio.Serve(q, func(_ context.Context, c *virtqueue.Chain) uint32 {
		p.at("handler")
		return reflect(c)
	})
}

func (p *panicky) StopQueue(int) {
	if p.srv != nil {
		p.srv.Stop()
	}
	p.at("StopQueue")
}
