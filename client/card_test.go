package client_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vfiouser/client"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

const (
	cardVectors = 4
	// cardRaise is a register of the card: a write of n raises vector n.
	cardRaise = 0x10
	cardArea  = 4096 // size of BAR2, bytes
)

// card is a device of a server that the tests and examples run in this process: BAR0 is plain memory but for cardRaise, and so
// is BAR2, which can be mapped if there is something to map.
type card struct {
	engine.BaseDevice
	area      *client.Memory
	session   atomic.Pointer[engine.Session]
	registers [4096]byte
}

func (c *card) Describe() (engine.Description, error) {
	bars := [6]pci.BAR{{Size: uint64(len(c.registers)), Type: pci.Mem32}}
	if c.area != nil {
		bars[2] = pci.BAR{Size: cardArea, Type: pci.Mem32}
	}
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0011, Class: 0xff0000, BARs: bars})
	desc := engine.Description{Config: config}
	desc.IRQs[irq.MSIX] = cardVectors
	desc.Regions[engine.RegionBAR0] = engine.Region{Size: uint64(len(c.registers)), Read: c.read, Write: c.write}
	if c.area != nil {
		desc.Regions[engine.RegionBAR2] = engine.Region{
			Size: cardArea, FD: c.area.FD(), Areas: []engine.Area{{Size: cardArea}},
			Read:  func(off uint64, p []byte) error { copy(p, c.area.Bytes()[off:]); return nil },
			Write: func(off uint64, p []byte) error { copy(c.area.Bytes()[off:], p); return nil },
		}
	}
	return desc, err
}

// ResetDevice clears the registers.
func (c *card) ResetDevice(*engine.Session) { clear(c.registers[:]) }

func (c *card) NewDevice(s *engine.Session) error { c.session.Store(s); return nil }

func (c *card) read(off uint64, p []byte) error { copy(p, c.registers[off:]); return nil }

func (c *card) write(off uint64, p []byte) error {
	copy(c.registers[off:], p)
	if off == cardRaise && len(p) == 4 {
		return c.session.Load().IRQ().Vector(irq.MSIX, int(binary.LittleEndian.Uint32(p))%cardVectors).Trigger()
	}
	return nil
}

// poke writes to the client's memory from the device.
func (c *card) poke(iova uint64, v byte) error {
	s := c.session.Load()
	r := s.Memory().NewReader()
	defer r.Close()
	r.Enter()
	defer r.Exit()
	b, err := r.Bytes(iova, 1, dma.ProtWrite)
	if err == nil {
		b[0] = v
		r.Wrote(iova, 1)
	}
	return err
}

// serve starts a server for a card on a path; stop ends it as if it were killed.
func serve(t testing.TB, path string, c *card, cfg engine.Config) (stop func()) {
	t.Helper()
	return serveOn(t, path, c, cfg)
}

func serveDevice(t testing.TB, path string, d engine.Device) (stop func()) {
	t.Helper()
	return serveOn(t, path, d, engine.Config{})
}

func serveOn(t testing.TB, path string, c engine.Device, cfg engine.Config) (stop func()) {
	t.Helper()
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ep, err := e.Register(path, c)
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		e.Close()
		t.Fatal(err)
	}
	return func() { e.Close() }
}

func socketPath(t testing.TB) string { return filepath.Join(t.TempDir(), "card.sock") }

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// noLeaks fails the test if it leaves a goroutine or a descriptor behind. Call it first: it looks last.
func noLeaks(t *testing.T) {
	t.Helper()
	count := func() int {
		null, err := os.Open(os.DevNull) // the runtime opens its own poller with the first file
		if err != nil {
			t.Fatal(err)
		}
		null.Close()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	t.Cleanup(func() {
		goleak.VerifyNone(t)
		if after := count(); after != before {
			t.Errorf("%d descriptors were open before the test, %d are now", before, after)
		}
	})
}
