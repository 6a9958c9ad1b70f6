package nvme

import (
	"math/bits"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// Layout of the function. BAR0 is larger than registers and doorbells need, because
// Windows refuses less than 16 KiB; the MSI-X structures have BARs of their own so
// that BAR0 can be mapped in part.
const (
	bar0Size = 16 << 10
	tableBAR = 4
	pbaBAR   = 5
	msixBAR  = 4096

	classNVMe = 0x010802 // mass storage, non-volatile memory, NVMe I/O controller
	maxMSI    = 32
)

// vectors is the number of MSI-X vectors: one for each I/O queue and the admin queue.
func (c *Controller) vectors() int { return c.cfg.Queues + 1 }

// messages is the number of MSI vectors, a power of two.
func (c *Controller) messages() int {
	return min(maxMSI, 1<<bits.Len(uint(c.cfg.Queues)))
}

func (c *Controller) newSpace() error {
	cfg := pci.Config{
		Vendor: c.cfg.VendorID, Device: c.cfg.DeviceID,
		SubVendor: c.cfg.VendorID, SubDevice: c.cfg.DeviceID,
		Class: classNVMe, Revision: 1, InterruptPin: 1, Express: true,
	}
	cfg.BARs[0] = pci.BAR{Size: bar0Size, Type: pci.Mem64}
	cfg.BARs[tableBAR] = pci.BAR{Size: msixBAR}
	cfg.BARs[pbaBAR] = pci.BAR{Size: msixBAR}
	s, err := pci.NewSpace(cfg)
	if err != nil {
		return err
	}
	if _, err := s.AddPM(pci.PM{}); err != nil {
		return err
	}
	if _, err := s.AddMSI(pci.MSI{Vectors: c.messages(), Maskable: true}); err != nil {
		return err
	}
	if _, err := s.AddExpress(pci.Express{}); err != nil {
		return err
	}
	if _, err := s.AddMSIX(pci.MSIX{Vectors: c.vectors(), TableBAR: tableBAR, PBABAR: pbaBAR}); err != nil {
		return err
	}
	c.space = s
	c.msix, err = pci.NewMSIXTable(c.vectors())
	return err
}

// Describe gives the shape of the device.
func (c *Controller) Describe() (engine.Description, error) {
	d := engine.Description{Config: c.space, MSIX: c.msix, StateVersion: stateVersion}
	d.Regions[engine.RegionBAR0] = engine.Region{Size: bar0Size, Read: c.readBAR0, Write: c.writeBAR0}
	if c.cfg.Doorbells == Mmap {
		r := &d.Regions[engine.RegionBAR0]
		r.FD = c.doorbells.fd
		r.Areas = []engine.Area{{Offset: doorbellOffset, Size: pageSize}}
	}
	d.IRQs[irq.INTx] = 1
	d.IRQs[irq.MSI] = c.messages()
	d.IRQs[irq.MSIX] = c.vectors()
	d.IRQs[irq.Err] = 1
	d.IRQs[irq.Req] = 1
	return d, nil
}
