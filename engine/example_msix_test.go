package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"vfiouser/client"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// chime has four MSI-X vectors, which a write to its one register rings, and an expansion
// ROM. Its table and pending bits lie in BAR 1, which the engine serves by itself.
type chime struct {
	engine.BaseDevice
	session *engine.Session
}

func (c *chime) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0011, Class: 0xff0000, ROMSize: 2048,
		BARs: [pci.NumBARs]pci.BAR{{Size: 16}, {Size: 4096}},
	})
	if err != nil {
		return engine.Description{}, err
	}
	if _, err := config.AddMSIX(pci.MSIX{Vectors: 4, TableBAR: 1, PBABAR: 1, PBAOffset: 0x800}); err != nil {
		return engine.Description{}, err
	}
	table, err := pci.NewMSIXTable(4)
	desc := engine.Description{Config: config, MSIX: table, ROM: []byte{0x55, 0xaa, 4}}
	desc.Regions[engine.RegionBAR0] = engine.Region{Size: 16, Write: func(_ uint64, p []byte) error {
		return c.session.IRQ().Vector(irq.MSIX, int(p[0]%4)).Trigger()
	}}
	return desc, err
}

func (c *chime) NewDevice(s *engine.Session) error { c.session = s; return nil }

// A device gives its MSI-X table and its ROM, and the engine does the rest: a vector that
// the table masks waits, shows in the pending bits, and fires when it is unmasked.
func Example_messageSignalledInterrupts() {
	dir, err := os.MkdirTemp("", "chime")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	e, err := engine.New(engine.Config{})
	if err != nil {
		panic(err)
	}
	defer e.Close()
	ep, err := e.Register(filepath.Join(dir, "chime.sock"), new(chime))
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	dev, err := client.Attach(ctx, ep.Path())
	if err != nil {
		panic(err)
	}
	defer dev.Close()
	event, err := client.NewEventfd()
	if err != nil {
		panic(err)
	}
	defer event.Close()
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	pending := func() uint64 {
		bits, err := dev.ReadRegion64(ctx, client.RegionBAR1, 0x800)
		check(err)
		return bits
	}
	const vector2 = 2 * pci.MSIXEntrySize
	check(dev.EnableIRQ(ctx, client.IRQMSIX, 2, event.FD()))
	check(dev.WriteRegion32(ctx, client.RegionBAR1, vector2+12, 0))
	check(dev.WriteRegion32(ctx, client.RegionBAR1, vector2+12, 1)) // mask it
	check(dev.WriteRegion32(ctx, client.RegionBAR0, 0, 2))          // ring it
	fmt.Printf("pending %#b\n", pending())
	check(dev.WriteRegion32(ctx, client.RegionBAR1, vector2+12, 0)) // unmask it
	n, err := event.Wait(ctx)
	check(err)
	fmt.Printf("%d interrupt, pending %#b\n", n, pending())
	// Output:
	// pending 0b100
	// 1 interrupt, pending 0b0
}
