package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// plenty is a device that makes use of all that the engine has: memory behind handlers (BAR0),
// memory that can be mapped (BAR2), ioeventfds, MSI-X, INTx, a ROM, a region of its own,
// interrupts, DMA from a region handler, and state that moves, also while it runs.
type plenty struct {
	engine.BaseDevice
	fd   int
	page []byte

	mu  sync.Mutex // migration runs on a goroutine of its own
	s   *engine.Session
	mem [4096]byte
}

// The registers of BAR0: what is written to them is done. The rest is memory.
const (
	plentyAddress = 0x00 // 8 bytes: an IOVA
	plentyLength  = 0x08 // 4 bytes
	plentyGo      = 0x0c // 4 bytes: 1 reads, 2 writes, 3 triggers vector plentyLength, 4 does all at once
	plentyBell    = 0x10 // 4 bytes, with an ioeventfd
	plentyBuffer  = 0x100
)

func newPlenty() (*plenty, error) {
	d := &plenty{}
	var err error
	d.fd, d.page, err = engine.SharedMemory("plenty", 8192)
	return d, err
}

func (d *plenty) Close() error { return engine.ReleaseSharedMemory(d.fd, d.page) }

func (d *plenty) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0002, Class: 0xff0000, InterruptPin: 1, Express: true, ROMSize: 4096,
		BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}, {}, {Size: 8192, Type: pci.Mem64}, {}, {Size: 4096, Type: pci.Mem32}},
	})
	if err != nil {
		return engine.Description{}, err
	}
	_, err1 := config.AddExpress(pci.Express{FLR: true})
	_, err2 := config.AddMSIX(pci.MSIX{Vectors: 8, TableBAR: 4, PBABAR: 4, PBAOffset: 2048})
	table, err3 := pci.NewMSIXTable(8)
	desc := engine.Description{Config: config, MSIX: table, ROM: []byte("\x55\xaa"), StateVersion: 2}
	desc.Regions[0] = engine.Region{Size: 4096, Read: d.read, Write: d.write, IOEventfds: []engine.IOEventfd{
		{Offset: plentyBell, Size: 4, Event: &engine.IOEvent{Handler: func(*engine.Session) { d.ring() }}},
	}}
	access := func(op func(dst, src []byte)) func(uint64, []byte) error {
		return func(off uint64, p []byte) error { op(d.page[off:], p); return nil }
	}
	desc.Regions[2] = engine.Region{
		Size: 8192, FD: d.fd, Areas: []engine.Area{{Offset: 4096, Size: 4096}},
		Read:  access(func(page, p []byte) { copy(p, page) }),
		Write: access(func(page, p []byte) { copy(page, p) }),
	}
	desc.Extra = []engine.Region{{
		Type: engine.RegionType{Type: 1 << 31, Subtype: 7}, Size: 100,
		Read: func(uint64, []byte) error { return unix.EPERM },
	}}
	desc.IRQs[irq.INTx], desc.IRQs[irq.Err], desc.IRQs[irq.Req] = 1, 1, 1
	return desc, errors.Join(err1, err2, err3)
}

func (d *plenty) NewDevice(s *engine.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.s = s
	return nil
}

func (d *plenty) ResetDevice(*engine.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.mem[:])
}

func (d *plenty) read(off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.mem[off:])
	return nil
}

func (d *plenty) write(off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.mem[off:], p)
	switch {
	case off == plentyGo && len(p) == 4:
		d.act(p[0])
	case off == plentyBell && len(p) == 4:
		d.bell()
	}
	return nil
}

// ring is the bell of the ioeventfd.
func (d *plenty) ring() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bell()
}

func (d *plenty) bell() { d.mem[plentyBell+4]++ }

// act does what was asked for.
func (d *plenty) act(what byte) {
	addr := binary.LittleEndian.Uint64(d.mem[plentyAddress:])
	n := binary.LittleEndian.Uint32(d.mem[plentyLength:])
	buf := make([]byte, min(n, 1024))
	done := func(error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		copy(d.mem[plentyBuffer:], buf)
		d.trigger(0)
	}
	switch what {
	case 1:
		d.s.StartReadDMA(addr, buf, done)
	case 2:
		copy(buf, d.mem[plentyBuffer:])
		d.s.StartWriteDMA(addr, buf, done)
	case 3:
		d.trigger(int(n % 8))
	case 4:
		for i := range 20 {
			d.s.StartReadDMA(addr+uint64(i), make([]byte, 4), func(error) {})
			d.trigger(i % 8)
		}
	}
}

// trigger signals an interrupt, as if it could not fail: that nobody listens is the client's matter.
func (d *plenty) trigger(n int) {
	_ = d.s.IRQ().Vector(irq.MSIX, n).Trigger()
	_ = d.s.IRQ().Vector(irq.INTx, 0).Trigger()
}

func (d *plenty) state() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.mem[:])
}

func (d *plenty) SaveState(_ *engine.Session, w io.Writer) error {
	_, err := w.Write(d.state())
	return err
}

func (d *plenty) PreCopy(_ *engine.Session, round int, w io.Writer) error {
	if round > 2 {
		return nil
	}
	_, err := w.Write(d.state()[:100>>round])
	return err
}

func (d *plenty) EndPreCopy(*engine.Session) {}

// LoadState takes the last page of what comes.
func (d *plenty) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	all, err := io.ReadAll(io.LimitReader(r, 8<<10))
	if err != nil {
		return err
	}
	if len(all) < len(d.mem) {
		return io.ErrUnexpectedEOF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.mem[:], slices.Clone(all[len(all)-len(d.mem):]))
	return nil
}
