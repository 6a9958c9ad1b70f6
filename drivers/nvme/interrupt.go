package nvme

import (
	"context"
	"encoding/binary"
	"fmt"

	"vfiouser/client"
)

// Configuration space (PCI Local Bus 3.0, 6.1 and 6.8.2).
const (
	pciCommand      = 0x04
	pciStatus       = 0x06
	pciCapabilities = 0x34
	pciHeaderEnd    = 0x40
	pciConfigSize   = 0x100

	commandMemory    = 1 << 1
	commandBusMaster = 1 << 2
	commandNoINTx    = 1 << 10
	statusCapList    = 1 << 4

	capMSIX     = 0x11
	msixControl = 2 // offset in the capability
	msixEnable  = 1 << 15
)

// configure enables memory accesses and bus mastering, and finds MSI-X.
func (c *Controller) configure(ctx context.Context) error {
	var config [pciConfigSize]byte
	if err := c.dev.ReadRegion(ctx, client.RegionConfig, 0, config[:]); err != nil {
		return fmt.Errorf("nvme: read configuration space: %w", err)
	}
	command := binary.LittleEndian.Uint16(config[pciCommand:])
	command |= commandMemory | commandBusMaster | commandNoINTx
	if err := c.writeConfig16(ctx, pciCommand, command); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(config[pciStatus:])&statusCapList == 0 {
		return nil
	}
	at := config[pciCapabilities] &^ 3
	for range pciConfigSize / 4 { // a list that bites its own tail ends, too
		if at < pciHeaderEnd {
			break
		}
		if config[at] == capMSIX {
			c.msix = uint64(at)
			c.msixControl = binary.LittleEndian.Uint16(config[at+msixControl:])
			break
		}
		at = config[at+1] &^ 3
	}
	return nil
}

func (c *Controller) writeConfig16(ctx context.Context, off uint64, v uint16) error {
	var b [2]byte
	binary.LittleEndian.PutUint16(b[:], v)
	if err := c.dev.WriteRegion(ctx, client.RegionConfig, off, b[:]); err != nil {
		return fmt.Errorf("nvme: write configuration space at %#x: %w", off, err)
	}
	return nil
}

// enableVector has the device signal an eventfd of the queue's own, on the vector of its number.
func (c *Controller) enableVector(ctx context.Context, q *Queue) error {
	info, err := c.dev.IRQInfo(ctx, client.IRQMSIX)
	if err != nil {
		return err
	}
	if uint32(q.id) >= info.Count || c.msix == 0 {
		return fmt.Errorf("%w: %d interrupt vectors", ErrUnsupported, info.Count)
	}
	if q.irq, err = client.NewEventfd(); err != nil {
		return err
	}
	if err := c.dev.EnableIRQ(ctx, client.IRQMSIX, int(q.id), q.irq.FD()); err != nil {
		return err
	}
	if c.msixControl&msixEnable == 0 {
		c.msixControl |= msixEnable
		return c.writeConfig16(ctx, c.msix+msixControl, c.msixControl)
	}
	return nil
}
