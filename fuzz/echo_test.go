package fuzz

import (
	"encoding/binary"
	"io"
	"sync"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// echo is a device whose state is a page of memory and its interrupts, so that a model of it is
// simple. What is written to echoDo is done at once or begun; done tells when that has ended.
type echo struct {
	engine.BaseDevice
	done chan error

	mu  sync.Mutex
	s   *engine.Session
	mem [4096]byte
}

// The register that acts: 16 bytes, with an IOVA, a length of 2 bytes, an action and a vector.
const echoDo = 0xff0

// What echo does.
const (
	echoNothing = iota
	echoReads   // memory to the beginning of the page
	echoWrites  // the other way round
	echoTriggers
)

// echoVectors is how many MSI-X vectors it has. Nothing but the client masks them.
const echoVectors = 4

func newEcho() *echo { return &echo{done: make(chan error, 1)} }

func (d *echo) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0003, Class: 0xff0000, BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}}})
	desc := engine.Description{Config: config}
	desc.Regions[0] = engine.Region{
		Size: 4096,
		Read: func(off uint64, p []byte) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			copy(p, d.mem[off:])
			return nil
		},
		Write: d.write,
	}
	desc.IRQs[irq.MSIX] = echoVectors
	return desc, err
}

func (d *echo) NewDevice(s *engine.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.s = s
	return nil
}

func (d *echo) ResetDevice(*engine.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.mem[:])
}

func (d *echo) write(off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.mem[off:], p)
	if off != echoDo || len(p) != 16 {
		return nil
	}
	addr, n := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint16(p[8:])%2048
	buf := make([]byte, n)
	switch p[10] {
	case echoReads:
		d.s.StartReadDMA(addr, buf, func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if err == nil {
				copy(d.mem[:], buf)
			}
			d.done <- err
		})
	case echoWrites:
		copy(buf, d.mem[:])
		d.s.StartWriteDMA(addr, buf, func(err error) { d.done <- err })
	case echoTriggers:
		d.done <- d.s.IRQ().Vector(irq.MSIX, int(p[11]%echoVectors)).Trigger()
	default:
		d.done <- nil
	}
	return nil
}

func (d *echo) SaveState(_ *engine.Session, w io.Writer) error {
	d.mu.Lock()
	mem := d.mem
	d.mu.Unlock()
	_, err := w.Write(mem[:])
	return err
}

func (d *echo) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	var mem [4096]byte
	if _, err := io.ReadFull(r, mem[:]); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mem = mem
	return nil
}
