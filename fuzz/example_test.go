package fuzz_test

import (
	"testing"

	"vfiouser/engine"
	"vfiouser/fuzz"
	"vfiouser/irq"
	"vfiouser/pci"
)

// scratch is a device of ten lines: a page of memory, and an interrupt.
type scratch struct {
	engine.BaseDevice
	page [4096]byte
}

func (s *scratch) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0001, Class: 0xff0000, InterruptPin: 1, BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}}})
	d := engine.Description{Config: config}
	d.Regions[engine.RegionBAR0] = engine.Region{
		Size:  4096,
		Read:  func(off uint64, p []byte) error { copy(p, s.page[off:]); return nil },
		Write: func(off uint64, p []byte) error { copy(s.page[off:], p); return nil },
	}
	d.IRQs[irq.INTx] = 1
	return d, err
}

// FuzzScratch is a fuzz target of one's own device.
//
//fuzz:covers engine
func FuzzScratch(f *testing.F) {
	fuzz.Device(f, func() (*scratch, error) { return new(scratch), nil })
}

// A fuzz target of a device takes three lines; put them into a file *_test.go, and run
// go test -fuzz FuzzScratch.
func ExampleDevice() {
	_ = func(f *testing.F) { // FuzzScratch
		fuzz.Device(f, func() (*scratch, error) { return new(scratch), nil })
	}
}
