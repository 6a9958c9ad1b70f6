package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"vfiouser/client"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// copier is a whole device, a copy engine: the driver writes source, destination and
// length to BAR0, then anything to "start". The device copies that much of the driver's
// memory, leaves the result in "status", and interrupts.
type copier struct {
	engine.BaseDevice
	session *engine.Session
	regs    [5]uint64
}

const source, destination, length, start, status = 0, 1, 2, 3, 4 // registers of 8 bytes

const maxCopy = 1 << 20

func (c *copier) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0010, Class: 0x088000, InterruptPin: 1,
		BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}},
	})
	desc := engine.Description{Config: config}
	desc.Regions[engine.RegionBAR0] = engine.Region{Size: 4096, Read: c.read, Write: c.write}
	desc.IRQs[irq.INTx] = 1
	return desc, err
}

func (c *copier) NewDevice(s *engine.Session) error { c.session = s; return nil }

func (c *copier) ResetDevice(*engine.Session) { clear(c.regs[:]) }

func (c *copier) read(off uint64, p []byte) error {
	if off%8 == 0 && len(p) == 8 && off/8 < uint64(len(c.regs)) {
		binary.LittleEndian.PutUint64(p, c.regs[off/8])
	}
	return nil
}

func (c *copier) write(off uint64, p []byte) error {
	switch {
	case off%8 != 0 || len(p) != 8 || off/8 > start:
	case off/8 == start:
		c.copy()
	default:
		c.regs[off/8] = binary.LittleEndian.Uint64(p)
	}
	return nil
}

// copy runs on the reactor, which must not wait: the parts of the copy follow each other
// as the driver's memory answers.
func (c *copier) copy() {
	s, from, to, n := c.session, c.regs[source], c.regs[destination], c.regs[length]
	finish := func(err error) {
		c.regs[status] = 1
		if err != nil {
			c.regs[status] = 2
		}
		_ = s.IRQ().Vector(irq.INTx, 0).Trigger()
	}
	buf := make([]byte, min(n, maxCopy))
	s.StartReadDMA(from, buf, func(err error) {
		if err != nil {
			finish(err)
			return
		}
		s.StartWriteDMA(to, buf, finish)
	})
}

// A copy engine, and a driver that has it copy its memory.
func Example() {
	dir, err := os.MkdirTemp("", "copier")
	check(err)
	defer os.RemoveAll(dir)
	e, err := engine.New(engine.Config{})
	check(err)
	defer e.Close()
	ep, err := e.Register(filepath.Join(dir, "copier.sock"), new(copier))
	check(err)
	check(ep.Start())

	ctx := context.Background()
	dev, err := client.Attach(ctx, ep.Path())
	check(err)
	defer dev.Close()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	interrupt, err := client.NewEventfd()
	check(err)
	defer interrupt.Close()
	check(dev.MapDMA(ctx, mem.At(0x10_0000)))
	check(dev.EnableIRQ(ctx, client.IRQINTx, 0, interrupt.FD()))

	copy(mem.Bytes(), "hello, copy engine")
	check(dev.WriteRegion64(ctx, 0, source*8, 0x10_0000))
	check(dev.WriteRegion64(ctx, 0, destination*8, 0x18_0000))
	check(dev.WriteRegion64(ctx, 0, length*8, 18))
	check(dev.WriteRegion64(ctx, 0, start*8, 1))
	_, err = interrupt.Wait(ctx)
	check(err)
	result, err := dev.ReadRegion64(ctx, 0, status*8)
	check(err)
	fmt.Printf("status %d: %s\n", result, mem.Bytes()[0x8_0000:][:18])
	// Output: status 1: hello, copy engine
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
