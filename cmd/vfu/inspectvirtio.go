package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"

	"vfiouser/client"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
)

// virtioReport is what a virtio device says of itself.
type virtioReport struct {
	Type       int               `json:"type"`
	TypeName   string            `json:"type_name"`
	Structures []structureReport `json:"structures"`

	// If the common configuration can be read:
	Status string   `json:"status,omitempty"`
	States []string `json:"states,omitempty"`
	Queues int      `json:"queues,omitempty"`
	// If besides there is no driver:
	Features     string   `json:"features,omitempty"`
	FeatureNames []string `json:"feature_names,omitempty"`
	QueueSizes   []int    `json:"queue_sizes,omitempty"` // entries

	Network *networkReport `json:"network,omitempty"`
	Error   string         `json:"error,omitempty"`

	common, config *spec.Capability
}

type structureReport struct {
	Name       string `json:"name"`
	BAR        int    `json:"bar"`
	Offset     uint32 `json:"offset"`
	Size       uint32 `json:"size"`
	Multiplier uint32 `json:"multiplier,omitempty"`
}

// networkReport is the configuration of a network card: the fields whose features are offered.
type networkReport struct {
	MAC          string   `json:"mac,omitempty"`
	Link         string   `json:"link,omitempty"` // "up" or "down"
	Announce     bool     `json:"announce,omitempty"`
	MaxPairs     int      `json:"max_pairs,omitempty"`
	MTU          int      `json:"mtu,omitempty"`    // bytes
	Speed        *uint32  `json:"speed,omitempty"`  // Mbit/s
	Duplex       string   `json:"duplex,omitempty"` // "full", "half" or "unknown"
	RSSKeySize   int      `json:"rss_key_size,omitempty"`
	RSSTableSize int      `json:"rss_table_size,omitempty"`
	HashTypes    []string `json:"hash_types,omitempty"`
}

// virtioTypes are the names of the types of devices that are seen most (5).
var virtioTypes = map[int]string{
	1: "network card", 2: "block device", 3: "console", 4: "entropy source", 5: "memory balloon", 8: "SCSI host",
	9: "9P transport", 16: "GPU", 18: "input device", 19: "socket device", 20: "crypto device", 23: "IOMMU", 24: "memory device",
	25: "sound device", 26: "file system", 27: "persistent memory", 41: "GPIO device",
}

func isVirtio(vendor, device uint16) bool {
	return vendor == spec.PCIVendor && device > spec.PCIDeviceBase && device < spec.PCIDeviceBase+0x40
}

// virtioReader reads registers until something is refused.
type virtioReader struct {
	ctx     context.Context
	dev     *client.Device
	at      *spec.Capability // the structure that is read
	refused string
	err     error
}

func (v *virtioReader) access(do func(region int, off uint64) error, off int) {
	if v.err != nil || v.refused != "" {
		return
	}
	v.refused, v.err = refusal(do(int(v.at.BAR), uint64(v.at.Offset)+uint64(off)))
}

func (v *virtioReader) read(off, size int) (n uint32) {
	var b [4]byte
	v.bytes(off, b[:size])
	return binary.LittleEndian.Uint32(b[:])
}

func (v *virtioReader) bytes(off int, p []byte) {
	v.access(func(region int, off uint64) error { return v.dev.ReadRegion(v.ctx, region, off, p) }, off)
}

func (v *virtioReader) write(off, size int, n uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], n)
	v.access(func(region int, off uint64) error { return v.dev.WriteRegion(v.ctx, region, off, b[:size]) }, off)
}

// readVirtio follows the capabilities (4.1.4) and reads what they point at.
func (r *inspection) readVirtio(ctx context.Context, dev *client.Device) error {
	t := int(r.header.Device) - spec.PCIDeviceBase
	v := &virtioReport{Type: t, TypeName: virtioTypes[t], Structures: []structureReport{}}
	if v.TypeName == "" {
		v.TypeName = "unknown"
	}
	r.Virtio = v
	for _, c := range r.PCI.Capabilities {
		if !c.Extended && c.ID == capVendor {
			v.addStructure(r, r.space[c.Offset:])
		}
	}
	reader := virtioReader{ctx: ctx, dev: dev}
	if v.common != nil {
		v.readCommon(&reader, r.Regions[v.common.BAR].can("write"))
	}
	if v.config != nil && t == netspec.DeviceType && v.Features != "" {
		v.readNetwork(&reader)
	}
	v.Error = reader.refused
	return reader.err
}

// capVendor is the id of vendor-specific capabilities (PCI 3.0, appendix H).
const capVendor = 0x09

// addStructure notes what a capability points at. Of each type the first that can be read
// counts (4.1.4.1).
func (v *virtioReport) addStructure(r *inspection, b []byte) {
	var c spec.Capability
	if !c.Get(b) {
		return
	}
	name, ok := map[spec.CapType]string{
		spec.CapCommon: "common", spec.CapNotify: "notify", spec.CapISR: "isr", spec.CapDevice: "device",
		spec.CapPCI: "pci", spec.CapSharedMemory: "shared memory", spec.CapVendor: "vendor",
	}[c.Type]
	if !ok {
		name = fmt.Sprintf("type %d", c.Type)
	}
	v.Structures = append(v.Structures, structureReport{name, int(c.BAR), c.Offset, c.Size, c.Multiplier})
	if int(c.BAR) >= min(6, len(r.Regions)) || !r.Regions[c.BAR].readable(uint64(c.Offset)+uint64(c.Size)) {
		return
	}
	switch {
	case c.Type == spec.CapCommon && v.common == nil && c.Size >= spec.QueueNotifConfigData:
		v.common = &c
	case c.Type == spec.CapDevice && v.config == nil:
		v.config = &c
	}
}

// readCommon reads the common configuration (4.1.4.3). Features and queues are seen through
// selectors, which have to be written: that is done where there is no driver that uses
// them, and they are put back.
func (v *virtioReport) readCommon(r *virtioReader, writable bool) {
	r.at = v.common
	status := spec.Status(r.read(spec.DeviceStatus, 1))
	queues := int(r.read(spec.NumQueues, 2))
	if r.err != nil || r.refused != "" {
		return
	}
	v.Status, v.States, v.Queues = fmt.Sprintf("0x%02x", uint8(status)), statusNames(status), queues
	if status != 0 || !writable {
		return
	}
	var features uint64
	select0 := r.read(spec.DeviceFeatureSelect, 4)
	for half := range uint32(2) {
		r.write(spec.DeviceFeatureSelect, 4, half)
		features |= uint64(r.read(spec.DeviceFeature, 4)) << (32 * half)
	}
	r.write(spec.DeviceFeatureSelect, 4, select0)
	sizes := []int{}
	queue0 := r.read(spec.QueueSelect, 2)
	for i := range min(queues, maxListed) {
		r.write(spec.QueueSelect, 2, uint32(i))
		sizes = append(sizes, int(r.read(spec.QueueSize, 2)))
	}
	r.write(spec.QueueSelect, 2, queue0)
	if r.err != nil || r.refused != "" {
		return
	}
	v.Features, v.FeatureNames = fmt.Sprintf("0x%016x", features), featureNames(v.Type, features)
	v.QueueSizes = sizes
}

func statusNames(s spec.Status) []string {
	if s == 0 {
		return []string{"reset"}
	}
	return strings.Split(strings.ReplaceAll(strings.ToLower(s.String()), "bit ", "bit"), "|")
}

// readNetwork reads a network card's configuration (5.1.4) as it was at one moment.
func (v *virtioReport) readNetwork(r *virtioReader) {
	p := make([]byte, netspec.ConfigSize)
	for range 4 { // a configuration that changes for longer is shown as it comes
		r.at = v.common
		before := r.read(spec.ConfigGeneration, 1)
		r.at = v.config
		r.bytes(0, p[:min(len(p), int(v.config.Size))])
		r.at = v.common
		if after := r.read(spec.ConfigGeneration, 1); after == before {
			break
		}
	}
	if r.err != nil || r.refused != "" {
		return
	}
	var c netspec.Config
	c.Get(p)
	has := func(name string) bool { return slices.Contains(v.FeatureNames, name) }
	n := &networkReport{}
	if has("mac") {
		n.MAC = net.HardwareAddr(c.MAC[:]).String()
	}
	if has("status") {
		n.Link = "down"
		if c.Status&netspec.StatusLinkUp != 0 {
			n.Link = "up"
		}
		n.Announce = c.Status&netspec.StatusAnnounce != 0
	}
	if has("mq") || has("rss") {
		n.MaxPairs = int(c.Pairs)
	}
	if has("mtu") {
		n.MTU = int(c.MTU)
	}
	if has("speed_duplex") {
		n.Duplex = map[uint8]string{netspec.DuplexHalf: "half", netspec.DuplexFull: "full"}[c.Duplex]
		if n.Duplex == "" {
			n.Duplex = "unknown"
		}
		if c.Speed != netspec.SpeedUnknown {
			n.Speed = &c.Speed
		}
	}
	if has("rss") {
		n.RSSKeySize, n.RSSTableSize = int(c.KeySize), int(c.TableSize)
	}
	if has("rss") || has("hash_report") {
		n.HashTypes = names(c.HashTypes, "ipv4", "tcpv4", "udpv4", "ipv6", "tcpv6", "udpv6", "ipv6_ex", "tcpv6_ex", "udpv6_ex")
	}
	v.Network = n
}
