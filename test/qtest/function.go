package qtest

import (
	"context"
	"fmt"
)

// The registers of configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2).
const (
	configAddress = 0xcf8
	configData    = 0xcfc
)

// The registers of a PCI header, type 0.
const (
	offCommand = 0x04
	offBAR0    = 0x10
	offPointer = 0x34

	commandIO        = 1 << 0
	commandMemory    = 1 << 1
	commandBusMaster = 1 << 2
)

// Function is a PCI function on bus 0 of a machine.
type Function struct {
	m    *Machine
	slot int
}

// Function is the function 0 of a slot.
func (m *Machine) Function(slot int) Function { return Function{m, slot} }

func (f Function) selectRegister(ctx context.Context, off int) (port uint64, err error) {
	address := uint64(1)<<31 | uint64(f.slot)<<11 | uint64(off&^3)
	return configData + uint64(off&3), f.m.Store(ctx, Ports, configAddress, address, 4)
}

// Config reads 1, 2 or 4 bytes of the configuration space.
func (f Function) Config(ctx context.Context, off, size int) (uint32, error) {
	port, err := f.selectRegister(ctx, off)
	if err != nil {
		return 0, err
	}
	v, err := f.m.Load(ctx, Ports, port, size)
	return uint32(v), err
}

// SetConfig writes 1, 2 or 4 bytes of the configuration space.
func (f Function) SetConfig(ctx context.Context, off int, v uint32, size int) error {
	port, err := f.selectRegister(ctx, off)
	if err != nil {
		return err
	}
	return f.m.Store(ctx, Ports, port, uint64(v), size)
}

// Capability is the offset of a capability, 0 if there is none.
func (f Function) Capability(ctx context.Context, id uint8) (int, error) {
	at, err := f.Config(ctx, offPointer, 1)
	for n := 0; err == nil && at != 0; n++ {
		if n > 48 {
			return 0, fmt.Errorf("the capability chain of slot %d has a loop", f.slot)
		}
		var head uint32
		head, err = f.Config(ctx, int(at), 2)
		if err == nil && uint8(head) == id {
			return int(at), nil
		}
		at = head >> 8
	}
	return 0, err
}

// SizeBAR writes ones to a BAR and returns what it then reads as, as firmware does to
// learn its size. What was there is restored.
func (f Function) SizeBAR(ctx context.Context, bar int) (mask uint32, err error) {
	off := offBAR0 + 4*bar
	was, err := f.Config(ctx, off, 4)
	if err != nil {
		return 0, err
	}
	if err := f.SetConfig(ctx, off, ^uint32(0), 4); err != nil {
		return 0, err
	}
	if mask, err = f.Config(ctx, off, 4); err != nil {
		return 0, err
	}
	return mask, f.SetConfig(ctx, off, was, 4)
}

// SetBAR gives a BAR its address; a 64-bit BAR takes the next register too.
func (f Function) SetBAR(ctx context.Context, bar int, addr uint64, wide bool) error {
	if err := f.SetConfig(ctx, offBAR0+4*bar, uint32(addr), 4); err != nil || !wide {
		return err
	}
	return f.SetConfig(ctx, offBAR0+4*bar+4, uint32(addr>>32), 4)
}

// Enable turns I/O, memory and bus mastering on.
func (f Function) Enable(ctx context.Context) error {
	return f.SetConfig(ctx, offCommand, commandIO|commandMemory|commandBusMaster, 2)
}
