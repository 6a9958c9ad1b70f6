package virtio

import (
	"vfiouser/devices/virtio/spec"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// Layout of the function: each structure begins a page of BAR0, so that the notification
// area can be mapped and nothing else is. The MSI-X structures have BARs of their own.
const (
	pageSize     = 4096
	commonOffset = 0 * pageSize
	isrOffset    = 1 * pageSize
	deviceOffset = 2 * pageSize
	notifyOffset = 3 * pageSize
	barSize      = 4 * pageSize

	structBAR = 0
	tableBAR  = 4
	pbaBAR    = 5

	// notifyMultiplier is the distance of two queues' notification addresses in bytes:
	// NOTIFICATION_DATA has 4 bytes written there.
	notifyMultiplier = 4
	isrSize          = 1
)

func (f *Function) newSpace() error {
	c := &f.cfg
	table := pci.MSIX{Vectors: f.vectors(), TableBAR: tableBAR, PBABAR: pbaBAR}
	cfg := pci.Config{
		Vendor: spec.PCIVendor, Device: spec.PCIDeviceBase + c.Type,
		SubVendor: c.SubVendor, SubDevice: c.SubDevice,
		Class: c.Class, Revision: spec.PCIRevision, InterruptPin: 1, Express: true,
	}
	cfg.BARs[structBAR] = pci.BAR{Size: barSize, Type: pci.Mem64}
	cfg.BARs[tableBAR] = pci.BAR{Size: barFor(table.TableSize())}
	cfg.BARs[pbaBAR] = pci.BAR{Size: barFor(table.PBASize())}
	s, err := pci.NewSpace(cfg)
	if err != nil {
		return err
	}
	f.space = s
	for _, add := range []func() (int, error){
		func() (int, error) { return s.AddPM(pci.PM{}) },
		func() (int, error) { return s.AddExpress(pci.Express{FLR: true}) },
		func() (int, error) { return s.AddMSIX(table) },
	} {
		if _, err := add(); err != nil {
			return err
		}
	}
	for _, c := range f.capabilities() {
		if _, err := s.AddVendor(c.Data()[1:]); err != nil { // without the length
			return err
		}
	}
	if err := f.window.add(f); err != nil {
		return err
	}
	f.msix, err = pci.NewMSIXTable(f.vectors())
	return err
}

// barFor is the size of a BAR that holds n bytes.
func barFor(n int) uint64 {
	size := uint64(pageSize)
	for size < uint64(n) {
		size *= 2
	}
	return size
}

// capabilities point at the structures (4.1.4), beside the window.
func (f *Function) capabilities() []spec.Capability {
	list := []spec.Capability{
		{Type: spec.CapCommon, Offset: commonOffset, Size: spec.CommonSize},
		{Type: spec.CapISR, Offset: isrOffset, Size: isrSize},
		{Type: spec.CapNotify, Offset: notifyOffset, Size: uint32(f.cfg.Queues * notifyMultiplier), Multiplier: notifyMultiplier},
	}
	if n := f.cfg.ConfigSize; n > 0 {
		list = append(list, spec.Capability{Type: spec.CapDevice, Offset: deviceOffset, Size: uint32(n)})
	}
	for i := range list {
		list[i].BAR = structBAR
	}
	return list
}

// Describe gives the shape of the function.
func (f *Function) Describe() (engine.Description, error) {
	d := engine.Description{Config: f.space, MSIX: f.msix}
	r := &d.Regions[structBAR]
	*r = engine.Region{Size: barSize, Read: f.readBAR, Write: f.writeBAR}
	switch f.cfg.Doorbells {
	case Auto:
		r.IOEventfds = f.ioEventfds()
	case Mmap:
		r.FD = f.page.fd
		r.Areas = []engine.Area{{Offset: notifyOffset, Size: pageSize}}
	}
	d.IRQs[irq.INTx] = 1
	d.IRQs[irq.MSIX] = f.vectors()
	d.IRQs[irq.Err] = 1
	d.IRQs[irq.Req] = 1
	return d, nil
}
