package qtest

import (
	"bytes"
	"testing"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
	"vfiouser/test/card"
)

const (
	offStatus         = 0x06
	offROM            = 0x30
	commandNoLine     = 1 << 10 // Interrupt Disable
	statusInterrupt   = 1 << 3
	romEnable         = 1
	romAt             = 0xe002_0000
	withoutInterrupts = commandIO | commandMemory | commandBusMaster | commandNoLine
)

// TestLineIsDisabled raises the card's line while the command register disables it: QEMU
// sees it when the bit is cleared, and the status register shows it all the time.
func TestLineIsDisabled(t *testing.T) {
	r, _ := newCard(t, shared, card.Config{})
	r.check(r.m.Intercept(r.ctx))
	pending := func() bool { return r.config(offStatus, 2)&statusInterrupt != 0 }
	for range 5 {
		if pending() {
			t.Error("an interrupt is shown before there is one")
		}
		r.check(r.f.SetConfig(r.ctx, offCommand, withoutInterrupts, 2))
		r.setRegister(card.RegLine, 1, 4)
		if !pending() {
			t.Error("the status register does not show the line")
		}
		r.check(r.sync())
		if r.m.anyLine() {
			t.Error("a line that is disabled is up")
		}
		r.check(r.f.Enable(r.ctx))
		_, err := r.m.WaitLine(r.ctx, true)
		r.check(err)
		r.setRegister(card.RegLine, 0, 4)
		r.register(card.RegID) // QEMU lowers its line, and unmasks the card's
		_, err = r.m.WaitLine(r.ctx, false)
		r.check(err)
	}
}

// image is a device that is an expansion ROM.
type image struct {
	engine.BaseDevice
	bytes []byte
}

func (i image) Describe() (engine.Description, error) {
	space, err := pci.NewSpace(pci.Config{Vendor: card.Vendor, Device: card.DeviceID, Class: card.Class, ROMSize: 4096})
	desc := engine.Description{Config: space, ROM: i.bytes}
	desc.IRQs[irq.Err] = 1 // (QEMU warns of a device without ERR)
	return desc, err
}

// TestExpansionROM sizes and reads an expansion ROM as firmware does.
func TestExpansionROM(t *testing.T) {
	rom := make([]byte, 1000)
	for i := range rom {
		rom[i] = byte(i * 7)
	}
	copy(rom, []byte{0x55, 0xaa})
	r := start(t, "q35", shared, serve(t, image{bytes: rom}))
	r.check(r.f.SetConfig(r.ctx, offROM, 0xfffff800, 4))
	if got := r.config(offROM, 4); got != 0xfffff000 {
		t.Errorf("sizing reads %#x, want 4 KiB", got)
	}
	r.check(r.f.SetConfig(r.ctx, offROM, romAt|romEnable, 4))
	r.check(r.f.SetConfig(r.ctx, offCommand, commandMemory, 2))
	got := make([]byte, 1004)
	for i := range got {
		got[i] = byte(r.load(Memory, romAt+uint64(i), 1))
	}
	if want := append(rom, 0xff, 0xff, 0xff, 0xff); !bytes.Equal(got, want) {
		t.Errorf("the ROM reads % x…, want % x…", got[:16], want[:16])
	}
	r.store(Memory, romAt, 0, 4)
	if got := r.load(Memory, romAt, 4); got != 0x150eaa55 {
		t.Errorf("the ROM reads %#x after a write", got)
	}
}
