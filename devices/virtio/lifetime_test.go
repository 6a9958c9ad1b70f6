package virtio_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// flr asks for a function level reset, as a guest does.
func (g *guest) flr() {
	g.t.Helper()
	space := g.configSpace(0, 256)
	at := int(space[0x34])
	for space[at] != 0x10 {
		at = int(space[at+1])
	}
	control := g.configSpace(at+8, 2)
	control[1] |= 0x80
	if err := g.dev.WriteRegion(g.ctx, client.RegionConfig, uint64(at+8), control); err != nil {
		g.t.Fatal(err)
	}
}

func TestResetsOfTheFunction(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	for name, reset := range map[string]func(){
		"VFIO": func() {
			if err := g.dev.Reset(g.ctx); err != nil {
				t.Fatal(err)
			}
		},
		"function level": g.flr,
		"virtio":         g.reset,
	} {
		for _, queues := range [][]int{{0, 1, 2}, {}} {
			for _, r := range g.drive(queues...) {
				r.exchange("x")
			}
			l.function.Settle()
			l.echo.calls()
			reset()
			if s := g.status(); s != 0 {
				t.Errorf("%s: %v", name, s)
			}
			if isr := g.read(spec.CapISR, 0, 1); isr != 0 || g.statusBit() {
				t.Errorf("%s: ISR %#x", name, isr)
			}
			want := "-0 -1 -2 stop"
			if len(queues) == 0 {
				want = "stop"
			}
			if got := l.echo.calls(); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		g.reset()
		reset() // of a device that does nothing
	}
	g.drive(1)[0].exchange("after all that")
}

func TestClientsThatVanish(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	for name, leave := range map[string]func(g *guest){
		"idle":        func(*guest) {},
		"negotiating": func(g *guest) { g.negotiate(plainFeatures) },
		"enabled":     func(g *guest) { g.negotiate(plainFeatures); g.newRing(1, 8, 1) },
		"at once":     func(g *guest) { g.drive(0, 1, 2) },
		"running": func(g *guest) {
			for _, r := range g.drive(0, 1, 2) {
				r.exchange("x")
			}
		},
		"with work": func(g *guest) {
			for _, r := range g.drive(0, 1, 2) {
				r.offer([]byte("x"))
				r.notify()
			}
		},
		"resetting": func(g *guest) {
			g.drive(0, 1)
			g.set(spec.DeviceStatus, 0)
		},
		"resetting a queue": func(g *guest) {
			g.drive(0, 1)
			g.set(spec.QueueReset, 1)
		},
	} {
		for range 3 {
			g := l.attach(t)
			fresh := []access{
				{name: name + ": status", off: spec.DeviceStatus, want: 0},
				{name: name + ": selected", off: spec.QueueSelect, want: 0},
				{name: name + ": config vector", off: spec.ConfigMSIXVector, want: spec.NoVector},
				{name: name + ": features", off: spec.DriverFeature, want: 0},
			}
			g.check(fresh)
			for i := range uint64(3) {
				g.check([]access{
					{name + ": select", spec.QueueSelect, 2, i, i},
					{name: name + ": enabled", off: spec.QueueEnable, want: 0},
					{name: name + ": address", off: spec.QueueDesc, want: 0},
					{name: name + ": size", off: spec.QueueSize, want: maxSize},
				})
			}
			leave(g)
			g.leave()
		}
	}
	g := l.attach(t)
	g.drive(1)[0].exchange("the last one")
}

// TestSlowDeviceAndTheNextClient has a client go while a handler is at work: the next one
// is taken at once, and its queues run when the handler has ended.
func TestSlowDeviceAndTheNextClient(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	entered := make(chan struct{})
	slow := virtio.Handler(func(ctx context.Context, c *virtqueue.Chain) uint32 {
		close(entered)
		<-ctx.Done()
		return 0
	})
	l.echo.handle.Store(&slow)
	r := g.drive(0)[0]
	r.offer([]byte("slow"))
	r.notify()
	<-entered
	l.echo.handle.Store(nil)
	g.leave()
	next := l.attach(t)
	for _, r := range next.drive(0, 1) {
		r.exchange("x")
	}
}

// TestSlowStopAndTheNextClient has the device take its time to stop: it does not start for
// the next client before.
func TestSlowStopAndTheNextClient(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	g.drive(0, 1)[1].exchange("x")
	entered, release := make(chan struct{}), make(chan struct{})
	stopping := func() {
		close(entered)
		<-release
	}
	l.echo.stopping.Store(&stopping)
	g.leave()
	<-entered
	l.echo.stopping.Store(nil)
	next := l.attach(t)
	rings := next.drive(0, 1)
	rings[1].offer([]byte("patience"))
	rings[1].notify()
	if _, ok := rings[1].taken(); ok {
		t.Error("the device runs for the next client")
	}
	close(release)
	if got := string(rings[1].answer()); got != "ecneitap" {
		t.Errorf("%q", got)
	}
}

func TestClosedFunction(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	g.drive(0, 1)[1].exchange("x")
	g.leave()
	if err := errors.Join(l.function.Close(), l.function.Close()); err != nil {
		t.Fatal(err)
	}
	if got := l.echo.calls(); got != "start(VERSION_1 RING_RESET) +0r +1 -0 -1 stop" {
		t.Errorf("%q", got)
	}
	if dev, err := client.Attach(testContext(t), l.endpoint.Path()); err == nil {
		dev.Close()
		t.Error("a closed function takes a client")
	}
}

func TestMemoryComesAndGoes(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attachBare(t)
	mapping := g.mem.At(guestBase)
	rings := g.drive(0, 1, 2)
	for _, r := range rings {
		r.offer([]byte("nowhere"))
		r.notify()
	}
	l.function.Settle()
	for _, r := range rings {
		if _, ok := r.taken(); ok {
			t.Fatal("memory is used that is not mapped")
		}
	}
	for i := range 20 {
		if err := g.dev.MapDMA(g.ctx, mapping); err != nil {
			t.Fatal(err)
		}
		for _, r := range rings {
			if i == 0 {
				if got := string(r.answer()); got != "erehwon" {
					t.Errorf("%q", got)
				}
			}
			r.exchange("somewhere")
		}
		if err := g.dev.UnmapDMA(g.ctx, mapping.IOVA, mapping.Size); err != nil {
			t.Fatal(err)
		}
		// Notifications meanwhile are no reason to give up.
		for _, r := range rings {
			r.notify()
		}
	}
	if s := g.status(); s.Has(broken) {
		t.Error(s)
	}
}

func TestMemoryByMessage(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attachBare(t)
	mapping := g.mem.At(guestBase)
	remap := func(m client.Mapping, then ...client.Mapping) {
		t.Helper()
		if len(g.dev.Mappings()) > 0 {
			if err := g.dev.UnmapAllDMA(g.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.dev.MapDMA(g.ctx, append([]client.Mapping{m}, then...)...); err != nil {
			t.Fatal(err)
		}
		l.function.Settle()
	}
	// Memory may come in the middle of a look at all queues, so their order says nothing.
	moves := func() string {
		calls := strings.Fields(l.echo.calls())
		slices.SortStableFunc(calls, func(a, b string) int { return int(a[1]) - int(b[1]) })
		return strings.Join(calls, " ")
	}
	remap(mapping.ByMessage())
	rings := g.drive(0, 1, 2)
	l.function.Settle()
	if got, want := l.echo.calls(), "start(VERSION_1 RING_RESET) +0r +1r +2r"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 3 {
		for _, r := range rings {
			r.exchange("by message")
		}
		remap(mapping)
		// Queue 0 goes on by message, as Serve has it.
		if got, want := moves(), "-0 +0r -1 +1 -2 +2"; i == 0 && got != want || i > 0 && got != want[7:] {
			t.Errorf("with a descriptor: %q, want %q", got, want)
		}
		for _, r := range rings {
			r.exchange("in memory")
		}
		remap(mapping.ByMessage())
		if got, want := moves(), "-1 +1r -2 +2r"; got != want {
			t.Errorf("without: %q, want %q", got, want)
		}
	}

	// The rings in mapped memory, and the buffers of one queue not.
	remap(mapping)
	l.echo.calls()
	at := rings[1].in - guestBase // and out behind it
	end := mapping.Size
	remap(mapping.Slice(0, at), mapping.Slice(at, 2*4096).ByMessage(), mapping.Slice(at+2*4096, end-at-2*4096))
	rings[2].exchange("in memory")
	if got := l.echo.calls(); got != "" {
		t.Errorf("%q", got)
	}
	rings[1].exchange("buffers by message")
	if got, want := l.echo.calls(), "-1 +1r"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, r := range rings {
		r.exchange("on both ways")
	}
	remap(mapping)
	if got, want := l.echo.calls(), "-1 +1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	rings[1].exchange("in memory")
	if s := g.status(); s.Has(broken) {
		t.Error(s)
	}
}

// TestTruncatedMemory has a client whose memory gets shorter while queues use it.
func TestTruncatedMemory(t *testing.T) {
	holdings.CheckLeaks(t)
	eng, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	healthy := addLab(t, eng, virtio.Config{}).attach(t).drive(0, 1, 2)
	l := addLab(t, eng, virtio.Config{})
	for _, queue := range []int{0, 1} {
		g := l.attachBare(t)
		fd, err := unix.MemfdCreate("short", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, guestSize); err != nil {
			t.Fatal(err)
		}
		if err := g.dev.MapDMA(g.ctx, client.Mapping{IOVA: guestBase, Size: guestSize, FD: fd}); err != nil {
			t.Fatal(err)
		}
		g.drive(queue)
		l.function.Settle()
		if err := unix.Ftruncate(fd, 0); err != nil {
			t.Fatal(err)
		}
		// The session may have ended by now: a worker that has not gone to sleep looks by itself.
		_ = g.dev.WriteRegion(g.ctx, client.RegionBAR0, uint64(g.caps[spec.CapNotify].Offset)+uint64(queue*4), []byte{byte(queue), 0})
		<-g.dev.Done()
		g.leave()
		for _, h := range healthy {
			h.exchange("others go on")
		}
	}
	l.attach(t).drive(1)[0].exchange("the next one")
}
