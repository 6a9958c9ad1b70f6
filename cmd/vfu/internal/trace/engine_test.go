package trace

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// adder is a device of our engine: a write to BAR0 has it read two bytes of guest memory,
// write their sum behind them and interrupt. All in order, on a goroutine of its own.
type adder struct {
	engine.BaseDevice
	t       *testing.T
	session *engine.Session
	fd      int // memory that clients can map, behind BAR2
	start   chan uint64
	sums    chan struct{}
	plus    byte // a defect
}

func (a *adder) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0010, Class: 0x088000, InterruptPin: 1,
		BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}, {}, {Size: 4096, Type: pci.Mem32}},
	})
	desc := engine.Description{Config: config}
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size:  4096,
		Read:  func(uint64, []byte) error { return unix.EPERM },
		Write: func(off uint64, _ []byte) error { a.start <- off; return nil },
	}
	desc.Regions[engine.RegionBAR2] = engine.Region{
		Size: 4096, FD: a.fd, Areas: []engine.Area{{Offset: 0, Size: 4096}},
		Read: func(uint64, []byte) error { return nil },
	}
	desc.IRQs[irq.INTx] = 1
	return desc, err
}

func (a *adder) NewDevice(s *engine.Session) error { a.session = s; return nil }

func (a *adder) run(ctx context.Context) {
	defer close(a.sums)
	for off := range a.start {
		var p [2]byte
		iova := base + off
		err := a.session.ReadDMA(ctx, iova, p[:])
		if err == nil {
			err = a.session.WriteDMA(ctx, iova+2, []byte{p[0] + p[1] + a.plus})
		}
		if err == nil {
			err = a.session.IRQ().Vector(irq.INTx, 0).Trigger()
		}
		// (The player of a recording does not answer what was not recorded, and may be gone
		// before the interrupt, for which it does not wait.)
		if err != nil && a.plus == 0 && !errors.Is(err, irq.ErrClosed) {
			a.t.Error(err)
		}
	}
}

const base = 0x10000

// serveAdder serves one until the test ends.
func serveAdder(t *testing.T, path string, plus byte) {
	t.Helper()
	a := &adder{t: t, start: make(chan uint64, 16), sums: make(chan struct{}), plus: plus, fd: memfd(t, 4096)}
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	ep, err := e.Register(path, a)
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go a.run(ctx)
	t.Cleanup(func() {
		cancel()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		close(a.start)
		<-a.sums
		_ = unix.Close(a.fd)
	})
}

// add has the device do sums in memory that it reaches by messages only.
func add(t *testing.T, path string, options ...client.Option) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dev, err := client.Attach(ctx, path, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if dev.TwinSocket() != (len(options) > 0) {
		t.Error("the twin socket was not negotiated as it was asked for")
	}
	mem, err := client.NewMemory(4096)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if err := dev.MapDMA(ctx, mem.At(base).ByMessage()); err != nil {
		t.Fatal(err)
	}
	event, err := client.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	if err := dev.EnableIRQ(ctx, codec.IRQINTx, 0, event.FD()); err != nil {
		t.Fatal(err)
	}
	r, err := dev.Region(ctx, engine.RegionBAR2)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := dev.ReadRegion32(ctx, engine.RegionBAR0, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("the device's error arrives as %v", err)
	}
	for i := range byte(8) {
		at := 16 * int(i)
		copy(mem.Bytes()[at:], []byte{i, 100})
		if err := dev.WriteRegion32(ctx, engine.RegionBAR0, uint64(at), 1); err != nil {
			t.Fatal(err)
		}
		if _, err := event.Wait(ctx); err != nil {
			t.Fatalf("no interrupt: %v", err)
		}
		if got := mem.Bytes()[at+2]; got != i+100 {
			t.Errorf("the sum of %d and 100 is %d", i, got)
		}
		if err := dev.UnmaskIRQ(ctx, codec.IRQINTx, 0, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// Our client, a Proxy, our engine: DMA by message, on the twin socket and on the shared
// one, errors, interrupts, mapped regions. What was recorded can be played.
func TestOurClientAndOurEngine(t *testing.T) {
	for name, options := range map[string][]client.Option{"twin socket": {client.WithTwinSocket()}, "shared socket": nil} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			x.server.Close() // the engine takes its place
			t.Run("traced", func(t *testing.T) {
				serveAdder(t, x.b, 0)
				add(t, x.a, options...)
				add(t, x.a, options...)
				x.eventually("end of the second session", func() bool {
					return slices.ContainsFunc(x.events, func(e Event) bool { return e.Session == 2 && e.Kind == HangUp && e.Channel == Main })
				})
				x.stop()
			})
			text := shown(x.events)
			mark := ""
			if len(options) > 0 {
				mark = "twin "
			}
			for _, line := range []string{
				"< " + mark + "DMA_READ #", " reply 0x10010 2 bytes 01 64\n", "0x10012 1 bytes 65\n", "SET_IRQS #", "INTx vector 0 EVENTFD|TRIGGER [eventfd]\n",
				"[memfd 4KiB]\n", "error EPERM\n", " hangs up: session 2\n",
			} {
				if !strings.Contains(text, line) {
					t.Errorf("the trace lacks %q", line)
				}
			}
			if t.Failed() {
				t.Log(text)
			}
			recording := record(t, x.events).Bytes()
			t.Run("played", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				serveAdder(t, path, 0)
				played, err := Replay(context.Background(), bytes.NewReader(recording), path, patience)
				if err != nil || played.Sessions != 2 {
					t.Errorf("%+v, %v", played, err)
				}
			})
			t.Run("played against a device that adds wrong", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				serveAdder(t, path, 1)
				_, err := Replay(context.Background(), bytes.NewReader(recording), path, settle)
				differs(t, err, "no such command", "0x10002 1 bytes 65")
			})
		})
	}
}
