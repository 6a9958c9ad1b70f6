package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/pci"
)

// An inspection is what --json prints; docs/inspect.md describes it. Members are added, never
// changed or removed; then reportFormat stays.

const reportFormat = 1

// maxListed bounds how many regions and interrupts of a server are asked for.
const maxListed = 256

type inspection struct {
	Format      int               `json:"format"`
	Socket      string            `json:"socket"`
	Protocol    protocolReport    `json:"protocol"`
	Device      deviceReport      `json:"device"`
	PCI         *pciReport        `json:"pci,omitempty"`
	Regions     []regionReport    `json:"regions"`
	Interrupts  []interruptReport `json:"interrupts"`
	NVMe        *nvmeReport       `json:"nvme,omitempty"`
	Virtio      *virtioReport     `json:"virtio,omitempty"`
	ConfigSpace string            `json:"config_space,omitempty"` // hexadecimal digits

	space  []byte
	header pci.Header
}

type protocolReport struct {
	Version         string           `json:"version"`
	MaxMsgFDs       uint64           `json:"max_msg_fds"`
	MaxDataXferSize uint64           `json:"max_data_xfer_size"`
	MaxDMAMaps      uint64           `json:"max_dma_maps"`
	PgSizes         uint64           `json:"pgsizes"`
	WriteMultiple   bool             `json:"write_multiple"`
	TwinSocket      bool             `json:"twin_socket"`
	Migration       *migrationReport `json:"migration,omitempty"`
}

type migrationReport struct {
	PgSize        uint64 `json:"pgsize"`
	MaxBitmapSize uint64 `json:"max_bitmap_size"`
}

type deviceReport struct {
	Flags      []string `json:"flags"`
	Regions    uint32   `json:"regions"`
	Interrupts uint32   `json:"interrupts"`
	Migration  []string `json:"migration"` // what it can do; empty: it cannot be migrated
}

type pciReport struct {
	Vendor          string             `json:"vendor"`
	Device          string             `json:"device"`
	SubVendor       string             `json:"subsystem_vendor"`
	SubDevice       string             `json:"subsystem_device"`
	Class           string             `json:"class"`
	ClassName       string             `json:"class_name"`
	Revision        uint8              `json:"revision"`
	Command         string             `json:"command"`
	Status          string             `json:"status"`
	InterruptPin    string             `json:"interrupt_pin"` // "", or "A" to "D"
	Capabilities    []capabilityReport `json:"capabilities"`
	CapabilityError string             `json:"capability_error,omitempty"`
}

type capabilityReport struct {
	Offset   int    `json:"offset"`
	ID       uint16 `json:"id"`
	Extended bool   `json:"extended"`
	Version  uint8  `json:"version"`
	Name     string `json:"name"`
	Detail   string `json:"detail"`
}

type regionReport struct {
	Index      int               `json:"index"`
	Name       string            `json:"name"`
	Size       uint64            `json:"size"`
	Flags      []string          `json:"flags"`
	Areas      []areaReport      `json:"areas"`
	Type       *regionTypeReport `json:"type,omitempty"`
	IOEventfds []ioeventfdReport `json:"ioeventfds"`
	Error      string            `json:"error,omitempty"`
}

type areaReport struct {
	Offset uint64 `json:"offset"`
	Size   uint64 `json:"size"`
}

type regionTypeReport struct {
	Type    uint32 `json:"type"`
	Subtype uint32 `json:"subtype"`
}

type ioeventfdReport struct {
	areaReport
	Kind  string  `json:"kind"`
	Match *uint64 `json:"match,omitempty"`
}

type interruptReport struct {
	Index int      `json:"index"`
	Name  string   `json:"name"`
	Count uint32   `json:"count"`
	Flags []string `json:"flags"`
	Error string   `json:"error,omitempty"`
}

// examine asks a device for everything. What the server refuses to tell is said in the
// report; an error is the end of the session.
func examine(ctx context.Context, dev *client.Device) (*inspection, error) {
	r := &inspection{Format: reportFormat, Protocol: protocol(dev)}
	info := dev.Info()
	r.Device = deviceReport{
		Flags:   names(uint32(info.Flags), "reset", "pci"),
		Regions: info.NumRegions, Interrupts: info.NumIRQs, Migration: []string{},
	}
	regions := make([]*client.Region, min(info.NumRegions, maxListed))
	defer func() {
		for _, region := range regions {
			if region != nil {
				_ = region.Close()
			}
		}
	}()
	r.Regions = []regionReport{}
	for i := range regions {
		region, err := dev.Region(ctx, i)
		refused, err := refusal(err)
		if err != nil {
			return nil, err
		}
		regions[i] = region
		r.Regions = append(r.Regions, describeRegion(i, region, refused))
	}
	r.Interrupts = []interruptReport{}
	for i := range min(info.NumIRQs, maxListed) {
		index := codec.IRQIndex(i)
		irq, err := dev.IRQInfo(ctx, index)
		refused, err := refusal(err)
		if err != nil {
			return nil, err
		}
		r.Interrupts = append(r.Interrupts, interruptReport{
			Index: int(i), Name: index.String(), Count: irq.Count, Error: refused,
			Flags: names(uint32(irq.Flags), "eventfd", "maskable", "automasked", "noresize"),
		})
	}
	if info.Flags&codec.DeviceFlagPCI != 0 && len(regions) > codec.RegionConfig {
		if err := r.readSpace(ctx, dev, regions[codec.RegionConfig]); err != nil {
			return nil, err
		}
	}
	if r.PCI != nil && r.header.Class == classNVMe && r.Regions[0].readable(nvmeRegisters) {
		if err := r.readNVMe(ctx, dev); err != nil {
			return nil, err
		}
	}
	if r.PCI != nil && isVirtio(r.header.Vendor, r.header.Device) {
		if err := r.readVirtio(ctx, dev); err != nil {
			return nil, err
		}
	}
	return r, r.askForMore(ctx, dev, regions)
}

// refusal tells a server that says no from a session that has ended.
func refusal(err error) (string, error) {
	var remote *codec.Error
	if errors.As(err, &remote) && errors.Is(err, codec.ErrRemote) {
		return remote.Errno.Error(), nil
	}
	return "", err
}

// askForMore asks for what many servers do not have: so it comes last.
func (r *inspection) askForMore(ctx context.Context, dev *client.Device, regions []*client.Region) error {
	flags, err := dev.MigrationFlags(ctx)
	refused, err := refusal(err)
	if err != nil {
		return err
	}
	if refused == "" {
		r.Device.Migration = names(uint32(flags), "stop-copy", "p2p", "pre-copy")
	}
	for i, region := range regions {
		if region == nil || region.Size == 0 {
			continue
		}
		fds, err := region.IOFDs(ctx)
		refused, err := refusal(err)
		if err != nil {
			return err
		}
		if refused != "" {
			continue
		}
		for _, a := range fds.Areas {
			e := ioeventfdReport{areaReport{a.Offset, a.Size}, "ioeventfd", nil}
			switch a.Type {
			case codec.IORegionfd:
				e.Kind = "ioregionfd"
			case codec.IOEventfdShadow:
				e.Kind = "ioeventfd with shadow"
			}
			if a.Type != codec.IORegionfd && a.Flags&codec.IOEventfdDatamatch != 0 {
				e.Match = &a.Data
			}
			r.Regions[i].IOEventfds = append(r.Regions[i].IOEventfds, e)
		}
		_ = fds.Close()
	}
	return nil
}

func protocol(dev *client.Device) protocolReport {
	major, minor := dev.Version()
	caps := dev.Capabilities()
	p := protocolReport{
		Version:   fmt.Sprintf("%d.%d", major, minor),
		MaxMsgFDs: caps.MaxMsgFDs, MaxDataXferSize: caps.MaxDataXferSize, MaxDMAMaps: caps.MaxDMAMaps, PgSizes: caps.PgSizes,
		WriteMultiple: caps.WriteMultiple, TwinSocket: dev.TwinSocket(),
	}
	if m := caps.Migration; m != nil {
		p.Migration = &migrationReport{m.PgSize, m.MaxBitmapSize}
	}
	return p
}

// names are the names of the bits that are set, from bit 0 on; a bit without one is its number.
func names(bits uint32, known ...string) []string {
	list := []string{}
	for i := range 32 {
		switch {
		case bits>>i&1 == 0:
		case i < len(known):
			list = append(list, known[i])
		default:
			list = append(list, fmt.Sprintf("bit%d", i))
		}
	}
	return list
}

func regionName(i int) string {
	switch {
	case i <= codec.RegionBAR5:
		return fmt.Sprintf("BAR %d", i)
	case i < codec.NumRegions:
		return map[int]string{codec.RegionROM: "ROM", codec.RegionConfig: "config", codec.RegionVGA: "VGA"}[i]
	}
	return "own"
}

// describeRegion makes the report of a region, or of the refusal to tell of it.
func describeRegion(i int, region *client.Region, refused string) regionReport {
	r := regionReport{Index: i, Name: regionName(i), Flags: []string{}, Areas: []areaReport{}, IOEventfds: []ioeventfdReport{}, Error: refused}
	if region == nil {
		return r
	}
	r.Size = region.Size
	r.Flags = names(uint32(region.Flags&^codec.RegionFlagCaps), "read", "write", "mmap")
	for _, a := range region.Areas {
		r.Areas = append(r.Areas, areaReport{a.Offset, a.Size})
	}
	if region.Type != (codec.RegionType{}) {
		r.Type = &regionTypeReport{region.Type.Type, region.Type.Subtype}
	}
	return r
}

// readable says whether the first n bytes of the region can be read.
func (r *regionReport) readable(n uint64) bool {
	return r.Size >= n && r.can("read")
}

// can says whether the region has a flag.
func (r *regionReport) can(flag string) bool { return slices.Contains(r.Flags, flag) }

// readSpace reads and decodes the configuration space.
func (r *inspection) readSpace(ctx context.Context, dev *client.Device, region *client.Region) error {
	if region == nil || !region.Readable() || region.Size == 0 {
		return nil
	}
	space := make([]byte, min(region.Size, pci.ExpressSpaceSize))
	refused, err := refusal(dev.ReadRegion(ctx, codec.RegionConfig, 0, space))
	if err != nil {
		return err
	}
	if refused != "" {
		r.Regions[codec.RegionConfig].Error = refused
		return nil
	}
	h, err := pci.DecodeHeader(space)
	if err != nil {
		r.Regions[codec.RegionConfig].Error = err.Error()
		return nil
	}
	r.space, r.header, r.ConfigSpace = space, h, hex.EncodeToString(space)
	p := &pciReport{
		Vendor: fmt.Sprintf("0x%04x", h.Vendor), Device: fmt.Sprintf("0x%04x", h.Device),
		SubVendor: fmt.Sprintf("0x%04x", h.SubVendor), SubDevice: fmt.Sprintf("0x%04x", h.SubDevice),
		Class: fmt.Sprintf("0x%06x", h.Class), ClassName: pci.ClassName(h.Class), Revision: h.Revision,
		Command: fmt.Sprintf("0x%04x", uint16(h.Command)), Status: fmt.Sprintf("0x%04x", h.Status),
		Capabilities: []capabilityReport{},
	}
	if h.InterruptPin >= 1 && h.InterruptPin <= 4 {
		p.InterruptPin = string(rune('A' + h.InterruptPin - 1))
	}
	list, err := pci.Walk(space)
	if err != nil {
		p.CapabilityError = err.Error()
	}
	for _, c := range list {
		p.Capabilities = append(p.Capabilities, capabilityReport{c.Offset, c.ID, c.Extended, c.Version, c.Name(), c.Detail(space)})
	}
	r.PCI = p
	return nil
}

// dump is the configuration space, or its first n bytes, as lspci takes it.
func (r *inspection) dump(n int) []byte {
	title := fmt.Sprintf("%s: %04x:%04x", r.PCI.ClassName, r.header.Vendor, r.header.Device)
	return pci.AppendDump(nil, title, r.space[:n])
}
