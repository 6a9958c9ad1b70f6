package virtio

import (
	"context"
	"fmt"

	"vfiouser/client"
	"vfiouser/devices/virtio/spec"
	"vfiouser/pci"
)

// structure is where a structure of the transport lies.
type structure struct {
	bar  int
	off  uint64 // in the BAR, bytes
	size uint64 // bytes; 0: the device does not have it
}

// transport is what the capabilities say (4.1.4), and accesses by message to what they point at.
type transport struct {
	dev        *client.Device
	common     structure
	notify     structure
	config     structure
	multiplier uint32
	msix       uint64 // offset of the MSI-X capability in the configuration space; 0: none
}

// Capabilities of the configuration space (PCI Local Bus 3.0, 6.7 and 6.8.2).
const (
	capVendor = 0x09
	capMSIX   = 0x11

	msixControl = 2 // offset in the capability
	msixEnable  = 1 << 15
)

// find reads the configuration space and the capabilities in it.
func (t *transport) find(ctx context.Context, want uint16) (uint16, error) {
	config := make([]byte, pci.SpaceSize)
	if err := t.dev.ReadRegion(ctx, client.RegionConfig, 0, config); err != nil {
		return 0, fmt.Errorf("virtio: read configuration space: %w", err)
	}
	header, err := pci.DecodeHeader(config)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	if header.Vendor != spec.PCIVendor || header.Device <= spec.PCIDeviceBase || header.Device >= spec.PCIDeviceBase+0x40 {
		return 0, fmt.Errorf("%w: PCI device %04x:%04x is not a modern virtio device", ErrUnsupported, header.Vendor, header.Device)
	}
	kind := header.Device - spec.PCIDeviceBase
	if want != 0 && kind != want {
		return 0, fmt.Errorf("%w: virtio device of type %d, not %d", ErrUnsupported, kind, want)
	}
	capabilities, err := pci.Walk(config)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	for _, c := range capabilities {
		switch {
		case c.Extended:
		case c.ID == capMSIX && t.msix == 0:
			t.msix = uint64(c.Offset)
		case c.ID == capVendor:
			t.take(config[c.Offset:])
		}
	}
	if err := t.checkBARs(ctx); err != nil {
		return 0, err
	}
	return kind, nil
}

// take notes a structure, the first of its type that can be used: the device offers them in the order of its preference (4.1.4.1).
func (t *transport) take(b []byte) {
	var c spec.Capability
	if !c.Get(b) || c.BAR >= pci.NumBARs {
		return
	}
	var s *structure
	switch c.Type {
	case spec.CapCommon:
		s = &t.common
	case spec.CapNotify:
		s = &t.notify
	case spec.CapDevice:
		s = &t.config
	}
	if s == nil || s.size != 0 {
		return
	}
	*s = structure{int(c.BAR), uint64(c.Offset), uint64(c.Size)}
	if c.Type == spec.CapNotify {
		t.multiplier = c.Multiplier
	}
}

// checkBARs finds out whether what the driver needs is there.
func (t *transport) checkBARs(ctx context.Context) error {
	const leastCommon, leastNotify = spec.QueueNotifConfigData, 2 // what every device has
	if t.common.size < leastCommon || t.notify.size < leastNotify {
		return fmt.Errorf("%w: capabilities of a modern virtio device", ErrUnsupported)
	}
	for _, s := range []structure{t.common, t.notify, t.config} {
		if s.size == 0 {
			continue
		}
		region, err := t.dev.Region(ctx, s.bar)
		if err != nil {
			return err
		}
		size := region.Size
		_ = region.Close()
		if s.off > size || s.size > size-s.off {
			return fmt.Errorf("%w: structure at %#x of %d bytes in BAR%d of %d", ErrDevice, s.off, s.size, s.bar, size)
		}
	}
	return nil
}

// Registers of the common configuration, by message, with the width that the specification gives them.

func (t *transport) read8(ctx context.Context, off uint64) (uint8, error) {
	return t.dev.ReadRegion8(ctx, t.common.bar, t.common.off+off)
}

func (t *transport) read16(ctx context.Context, off uint64) (uint16, error) {
	return t.dev.ReadRegion16(ctx, t.common.bar, t.common.off+off)
}

func (t *transport) read32(ctx context.Context, off uint64) (uint32, error) {
	return t.dev.ReadRegion32(ctx, t.common.bar, t.common.off+off)
}

func (t *transport) write8(ctx context.Context, off uint64, v uint8) error {
	return t.dev.WriteRegion8(ctx, t.common.bar, t.common.off+off, v)
}

func (t *transport) write16(ctx context.Context, off uint64, v uint16) error {
	return t.dev.WriteRegion16(ctx, t.common.bar, t.common.off+off, v)
}

func (t *transport) write32(ctx context.Context, off uint64, v uint32) error {
	return t.dev.WriteRegion32(ctx, t.common.bar, t.common.off+off, v)
}

// write64 makes two accesses, the lower half first (4.1.3.1).
func (t *transport) write64(ctx context.Context, off, v uint64) error {
	if err := t.write32(ctx, off, uint32(v)); err != nil {
		return err
	}
	return t.write32(ctx, off+4, uint32(v>>32))
}

func (t *transport) status(ctx context.Context) (spec.Status, error) {
	v, err := t.read8(ctx, spec.DeviceStatus)
	return spec.Status(v), err
}

func (t *transport) setStatus(ctx context.Context, s spec.Status) error {
	return t.write8(ctx, spec.DeviceStatus, uint8(s))
}

// features reads the 64 feature bits that are offered.
func (t *transport) features(ctx context.Context) (v uint64, err error) {
	for half := range uint64(2) {
		if err := t.write32(ctx, spec.DeviceFeatureSelect, uint32(half)); err != nil {
			return 0, err
		}
		bits, err := t.read32(ctx, spec.DeviceFeature)
		if err != nil {
			return 0, err
		}
		v |= uint64(bits) << (32 * half)
	}
	return v, nil
}

func (t *transport) setFeatures(ctx context.Context, v uint64) error {
	for half := range uint64(2) {
		if err := t.write32(ctx, spec.DriverFeatureSelect, uint32(half)); err != nil {
			return err
		}
		if err := t.write32(ctx, spec.DriverFeature, uint32(v>>(32*half))); err != nil {
			return err
		}
	}
	return nil
}

// command sets and clears bits of a 16-bit register of the configuration space.
func (t *transport) command(ctx context.Context, off uint64, set, clear uint16) error {
	v, err := t.dev.ReadRegion16(ctx, client.RegionConfig, off)
	if err == nil {
		err = t.dev.WriteRegion16(ctx, client.RegionConfig, off, v&^clear|set)
	}
	if err != nil {
		return fmt.Errorf("virtio: configuration space at %#x: %w", off, err)
	}
	return nil
}
