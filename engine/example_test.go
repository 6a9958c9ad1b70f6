package engine_test

import (
	"fmt"
	"os"
	"path/filepath"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// lamp is a whole device: a PCI function with one register in BAR0, which counts how
// often it was written, and interrupts its client each time.
type lamp struct {
	engine.BaseDevice
	session *engine.Session
	writes  byte
}

func (l *lamp) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0010, Class: 0xff0000, InterruptPin: 1,
		BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}},
	})
	desc := engine.Description{Config: config}
	desc.IRQs[irq.INTx] = 1
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size: 4096,
		Read: func(_ uint64, p []byte) error { p[0] = l.writes; return nil },
		Write: func(uint64, []byte) error {
			l.writes++
			return l.session.IRQ().Vector(irq.INTx, 0).Trigger()
		},
	}
	return desc, err
}

func (l *lamp) NewDevice(s *engine.Session) error { l.session = s; return nil }

// A device is registered on a socket path and started; a monitor or a client may
// then connect.
func Example() {
	dir, err := os.MkdirTemp("", "lamp")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	e, err := engine.New(engine.Config{})
	if err != nil {
		panic(err)
	}
	defer e.Close()
	ep, err := e.Register(filepath.Join(dir, "lamp.sock"), new(lamp))
	if err != nil {
		panic(err)
	}
	if err := ep.Start(); err != nil {
		panic(err)
	}
	fmt.Println("listening on", filepath.Base(ep.Path()))
	// Output: listening on lamp.sock
}
