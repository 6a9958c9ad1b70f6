package virtio_test

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/engine"
)

const (
	patience  = 20 * time.Second
	guestBase = 0x1000_0000
	guestSize = 4 << 20
	maxSize   = 64 // entries of a queue
	// someFeatures are the device's own bits in these tests.
	someFeatures = 1<<0 | 1<<5 | 1<<63
	allFeatures  = someFeatures | virtio.Features
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until waits for something that happens elsewhere.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("no end of waiting for %s", what)
		}
		runtime.Gosched()
	}
}

// lab is an engine with one echo device.
type lab struct {
	engine   *engine.Engine
	endpoint *engine.Endpoint
	echo     *echo
	function *virtio.Function
}

func newLab(t testing.TB, cfg virtio.Config) *lab {
	t.Helper()
	eng, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	return addLab(t, eng, cfg)
}

// addLab adds an echo device to an engine.
func addLab(t testing.TB, eng *engine.Engine, cfg virtio.Config) *lab {
	t.Helper()
	if cfg.Type == 0 {
		cfg.Type = 42
	}
	if cfg.Queues == 0 {
		cfg.Queues = 3
	}
	if cfg.QueueSize == 0 {
		cfg.QueueSize = maxSize
	}
	if cfg.Features == 0 {
		cfg.Features = allFeatures
	}
	if cfg.ConfigSize == 0 {
		cfg.ConfigSize = echoConfigSize
	}
	e := newEcho(cfg.Queues)
	f, err := virtio.New(cfg, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		e.check(t)
	})
	l := serveFunction(t, eng, f)
	l.echo = e
	return l
}

// serveFunction has an engine offer a function.
func serveFunction(t testing.TB, eng *engine.Engine, f *virtio.Function) *lab {
	t.Helper()
	ep, err := eng.Register(filepath.Join(t.TempDir(), "virtio"), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.Close() })
	return &lab{engine: eng, endpoint: ep, function: f}
}

// guest is a client that plays the driver.
type guest struct {
	t    testing.TB
	ctx  context.Context
	dev  *client.Device
	mem  *client.Memory
	next uint64 // free memory, offset
	caps map[spec.CapType]spec.Capability
	// window is where the capability for access through the configuration space lies.
	window uint64

	features uint64
	once     sync.Once
}

// attach is a client with memory at guestBase.
func (l *lab) attach(t testing.TB) *guest {
	t.Helper()
	g := l.attachBare(t)
	if err := g.dev.MapDMA(g.ctx, g.mem.At(guestBase)); err != nil {
		t.Fatal(err)
	}
	return g
}

// attachBare is a client whose memory is not mapped yet.
func (l *lab) attachBare(t testing.TB) *guest {
	t.Helper()
	g := &guest{t: t, ctx: testContext(t)}
	var err error
	if g.dev, err = client.Attach(g.ctx, l.endpoint.Path()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.leave)
	if g.mem, err = client.NewMemory(guestSize); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.mem.Close() })
	g.findCapabilities()
	return g
}

func (g *guest) leave() { g.once.Do(func() { g.dev.Close() }) }

// configSpace reads n bytes of the configuration space.
func (g *guest) configSpace(off, n int) []byte {
	g.t.Helper()
	p := make([]byte, n)
	if err := g.dev.ReadRegion(g.ctx, client.RegionConfig, uint64(off), p); err != nil {
		g.t.Fatal(err)
	}
	return p
}

func (g *guest) findCapabilities() {
	g.t.Helper()
	space := g.configSpace(0, 256)
	g.caps = map[spec.CapType]spec.Capability{}
	for at := int(space[0x34]); at != 0; at = int(space[at+1]) {
		var c spec.Capability
		if space[at] != 0x09 {
			continue
		}
		if !c.Get(space[at:]) {
			g.t.Fatalf("broken capability at %#x", at)
		}
		g.caps[c.Type] = c
		if c.Type == spec.CapPCI {
			g.window = uint64(at)
		}
	}
}

// read and write access a structure in units of 1, 2, 4 or 8 bytes.
func (g *guest) read(typ spec.CapType, off, n int) uint64 {
	g.t.Helper()
	var p [8]byte
	c := g.caps[typ]
	if err := g.dev.ReadRegion(g.ctx, int(c.BAR), uint64(c.Offset)+uint64(off), p[:n]); err != nil {
		g.t.Fatal(err)
	}
	return binary.LittleEndian.Uint64(p[:])
}

func (g *guest) write(typ spec.CapType, off, n int, v uint64) {
	g.t.Helper()
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], v)
	c := g.caps[typ]
	if err := g.dev.WriteRegion(g.ctx, int(c.BAR), uint64(c.Offset)+uint64(off), p[:n]); err != nil {
		g.t.Fatal(err)
	}
}

// get and set access a field of the common configuration with its width.
func (g *guest) get(off int) uint64 {
	g.t.Helper()
	return g.read(spec.CapCommon, off, widths[off])
}

func (g *guest) set(off int, v uint64) {
	g.t.Helper()
	g.write(spec.CapCommon, off, widths[off], v)
}

var widths = map[int]int{
	spec.DeviceFeatureSelect: 4, spec.DeviceFeature: 4, spec.DriverFeatureSelect: 4, spec.DriverFeature: 4,
	spec.ConfigMSIXVector: 2, spec.NumQueues: 2, spec.DeviceStatus: 1, spec.ConfigGeneration: 1, spec.QueueSelect: 2,
	spec.QueueSize: 2, spec.QueueMSIXVector: 2, spec.QueueEnable: 2, spec.QueueNotifyOff: 2, spec.QueueDesc: 8,
	spec.QueueDriver: 8, spec.QueueDevice: 8, spec.QueueNotifConfigData: 2, spec.QueueReset: 2,
}

func (g *guest) status() spec.Status {
	g.t.Helper()
	return spec.Status(g.get(spec.DeviceStatus))
}

// step sets bits of the status.
func (g *guest) step(s spec.Status) {
	g.t.Helper()
	g.set(spec.DeviceStatus, uint64(g.status()|s))
}

// reset resets the device as drivers do.
func (g *guest) reset() {
	g.t.Helper()
	g.set(spec.DeviceStatus, 0)
	until(g.t, "the reset", func() bool { return g.status() == 0 })
}

func (g *guest) accept(features uint64) {
	g.t.Helper()
	for i := range uint64(2) {
		g.set(spec.DriverFeatureSelect, i)
		g.set(spec.DriverFeature, features>>(32*i)&0xffffffff)
	}
	g.features = features
}

// negotiate goes as far as FEATURES_OK.
func (g *guest) negotiate(features uint64) {
	g.t.Helper()
	g.reset()
	g.step(spec.StatusAcknowledge)
	g.step(spec.StatusDriver)
	g.accept(features)
	g.step(spec.StatusFeaturesOK)
	if !g.status().Has(spec.StatusFeaturesOK) {
		g.t.Fatalf("features %#x are not accepted", features)
	}
}

const plainFeatures = spec.FeatureVersion1 | spec.FeatureRingReset

// drive brings up the device with rings for some of its queues.
func (g *guest) drive(queues ...int) []*ring {
	g.t.Helper()
	g.negotiate(plainFeatures)
	var rings []*ring
	for _, i := range queues {
		rings = append(rings, g.newRing(i, maxSize, uint16(i)))
	}
	g.step(spec.StatusDriverOK)
	return rings
}

// alloc takes guest memory and gives its address.
func (g *guest) alloc(n, align int) uint64 {
	g.next = (g.next + uint64(align) - 1) &^ (uint64(align) - 1)
	at := g.next
	g.next += uint64(n)
	if g.next > guestSize {
		g.t.Fatal("guest memory is used up")
	}
	clear(g.bytes(guestBase+at, n))
	return guestBase + at
}

func (g *guest) bytes(iova uint64, n int) []byte { return g.mem.Bytes()[iova-guestBase:][:n:n] }
