package dut

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
	"vfiouser/test/conformance"
)

// Where the device has what, by region.
const (
	Scratch  = engine.RegionBAR0 // memory behind handlers
	ReadOnly = engine.RegionBAR1 // byte i reads i
	Sparse   = engine.RegionBAR2 // two mappable pages of four, memory throughout
	Mappable = engine.RegionBAR3 // a page
	Control  = engine.RegionBAR4
	Big      = engine.RegionBAR5 // more memory than one message moves
	Own      = engine.NumRegions // of the device's own: can only be written, and mapped in part

	vectors  = 32 // of MSI-X
	page     = 4096
	bigSize  = 2 << 20
	sparseSz = 4 * page
)

// Roles tell the suite what it cannot find out by asking.
var Roles = conformance.Roles{"scratch": Scratch, "big": Big, "control": Control}

// Device is the device.
type Device struct {
	engine.BaseDevice
	registers registers
	scratch   scratch
	rom       []byte // none: no expansion ROM
	sparse    int    // memfds
	mappable  int
	big       int
}

// New makes a device. Close it after its endpoint.
func New() (*Device, error) {
	d := &Device{sparse: -1, mappable: -1, big: -1}
	var err error
	if d.sparse, err = memory("sparse", sparseSz); err == nil {
		d.mappable, err = memory("mappable", page)
	}
	if err == nil {
		d.big, err = memory("big", 0)
	}
	if err == nil {
		err = unix.Ftruncate(d.big, bigSize)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close releases the memory behind the mappable regions.
func (d *Device) Close() {
	for _, fd := range []int{d.sparse, d.mappable, d.big} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// memory makes a file whose byte i is i.
func memory(name string, size int) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	_, err = unix.Pwrite(fd, b, 0)
	return fd, err
}

// Describe implements engine.Device.
func (d *Device) Describe() (engine.Description, error) {
	bar := func(size uint64) pci.BAR { return pci.BAR{Size: size, Type: pci.Mem32} }
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0xc0f0, Class: 0xff0000, Revision: 1, InterruptPin: 1, Express: true,
		ROMSize: uint32(len(d.rom)),
		BARs: [pci.NumBARs]pci.BAR{
			Scratch: bar(page), ReadOnly: bar(page), Sparse: bar(sparseSz), Mappable: bar(page),
			Control: bar(conformance.ControlSize), Big: bar(bigSize),
		},
	})
	if err != nil {
		return engine.Description{}, err
	}
	err = capabilities(config)
	desc := engine.Description{Config: config, StateVersion: 1, ROM: d.rom}
	if err == nil {
		desc.MSIX, err = pci.NewMSIXTable(vectors)
	}
	desc.Regions[Scratch] = engine.Region{Size: page, Read: d.scratch.read, Write: d.scratch.write}
	desc.Regions[Big] = file(d.big, bigSize)
	desc.Regions[ReadOnly] = engine.Region{Size: page, Read: func(off uint64, p []byte) error {
		for i := range p {
			p[i] = byte(off + uint64(i))
		}
		return nil
	}}
	desc.Regions[Sparse] = file(d.sparse, sparseSz,
		engine.Area{Offset: page, Size: page}, engine.Area{Offset: 3 * page, Size: page})
	desc.Regions[Mappable] = file(d.mappable, page, engine.Area{Size: page})
	desc.Regions[Control] = engine.Region{
		Size: conformance.ControlSize, Read: d.registers.read, Write: d.registers.write, IOEventfds: d.registers.ioeventfds(),
	}
	own := file(d.sparse, sparseSz, engine.Area{Offset: 2 * page, Size: page})
	own.Read, own.Type = nil, engine.RegionType{Type: 0xc0f0, Subtype: 1}
	own.IOEventfds = []engine.IOEventfd{{
		Offset: 8, Size: 4, Event: &d.registers.events[2], Shadow: &engine.IOShadow{FD: d.mappable, Offset: 64},
	}}
	desc.Extra = []engine.Region{own}
	desc.IRQs = [irq.NumIndexes]int{irq.INTx: 1, irq.MSI: 4, irq.MSIX: vectors, irq.Err: 1, irq.Req: 1}
	return desc, err
}

// capabilities fills the configuration space. MSI-X table and pending bits lie in the upper
// half of the big region, of which no case wants more than the lower.
func capabilities(config *pci.Space) error {
	_, err1 := config.AddExpress(pci.Express{FLR: true})
	_, err2 := config.AddPM(pci.PM{PME: pci.PMED0 | pci.PMED3hot})
	_, err3 := config.AddMSI(pci.MSI{Vectors: 4, Maskable: true})
	_, err4 := config.AddMSIX(pci.MSIX{Vectors: vectors, TableBAR: Big, TableOffset: bigSize / 2, PBABAR: Big, PBAOffset: bigSize/2 + page})
	_, err5 := config.AddVendor([]byte("abc"))
	_, err6 := config.AddAER()
	_, err7 := config.AddSerial(0x0102030405060708)
	return errors.Join(err1, err2, err3, err4, err5, err6, err7)
}

// file is a region that is memory which a client can map in part.
func file(fd int, size uint64, areas ...engine.Area) engine.Region {
	whole := func(n, want int, err error) error {
		if err == nil && n != want {
			err = fmt.Errorf("%d bytes of %d", n, want)
		}
		return err
	}
	return engine.Region{
		Size: size, FD: fd, Areas: areas,
		Read: func(off uint64, p []byte) error {
			n, err := unix.Pread(fd, p, int64(off))
			return whole(n, len(p), err)
		},
		Write: func(off uint64, p []byte) error {
			n, err := unix.Pwrite(fd, p, int64(off))
			return whole(n, len(p), err)
		},
	}
}

// NewDevice implements engine.Device.
func (d *Device) NewDevice(s *engine.Session) error {
	d.registers.attach(s)
	return nil
}

// DestroyDevice implements engine.Device.
func (d *Device) DestroyDevice(*engine.Session) { d.registers.detach() }

// ResetDevice implements engine.Device: the scratch memory reads 0 again.
func (d *Device) ResetDevice(*engine.Session) {
	d.scratch.reset()
	d.registers.reset()
}
