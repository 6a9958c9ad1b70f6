package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// Metadata describes the metadata of a namespace's blocks, and the protection information in its last bytes (NVM command
// set 1.0, 5.2).
type Metadata struct {
	Size       int  // bytes of each block; 0: there is none
	Extended   bool // it is transferred at the end of each block
	Protection int  // type of the protection information, 1 to 3; 0: there is none
	Guard      spec.Guard
	StorageTag int // bits
}

// Metadata describes the metadata of the namespace's blocks.
func (n *Namespace) Metadata() Metadata { return n.metadata }

// Protection is what a command asks for where there is protection information.
type Protection struct {
	// Action: the controller makes it when it writes. If metadata is nothing else, the host has none when it reads,
	// either.
	Action bool
	// What is checked. A reference tag of type 1 is the number of the block, or the error is
	// spec.InvalidProtectionInfo; type 3 has none to check.
	CheckGuard, CheckAppTag, CheckRefTag, CheckStorageTag bool
	// RefTag is the reference tag of the first block; those of types 1 and 2 count up.
	RefTag, StorageTag uint64
	// AppTag is the application tag, of which the bits in AppMask are checked.
	AppTag, AppMask uint16
}

// findMetadata completes what Identify Namespace says. Formats that only hosts may use that know them are enabled.
func (n *Namespace) findMetadata(ctx context.Context) error {
	id := &n.identity
	index := id.FLBAS & 0xf
	n.metadata = Metadata{Size: int(id.Formats[index].MetadataSize)}
	if n.metadata.Size == 0 {
		return nil
	}
	m := &n.metadata
	m.Extended, m.Protection = id.FLBAS&spec.FLBASExtended != 0, int(id.DPS&spec.DPSTypeMask)
	if m.Protection == 0 {
		return nil
	}
	if n.c.identity.CTRATT&spec.CTRATTExtendedLBAFormats != 0 {
		if err := n.findGuard(ctx, index); err != nil {
			return err
		}
	}
	if id.DPS&spec.DPSFirstBytes != 0 || m.Guard.Size() == 0 || m.Size < m.Guard.Size() || m.StorageTag > m.Guard.SpaceBits() {
		return fmt.Errorf("%w: protection information of namespace %d: %+v", ErrUnsupported, n.id, *m)
	}
	return nil
}

func (n *Namespace) findGuard(ctx context.Context, index uint8) error {
	data, err := n.c.IdentifyData(ctx, spec.CNSCommandSetNamespace, n.id)
	if err != nil {
		return err
	}
	var nvm spec.IdentifyNamespaceNVM
	nvm.Get(data)
	f := nvm.Formats[index]
	n.metadata.Guard, n.metadata.StorageTag = f.Guard, int(f.StorageTag)
	if f == (spec.ExtendedFormat{}) {
		return nil
	}
	b := make([]byte, spec.HostBehaviorSize)
	if _, err := n.c.GetFeature(ctx, spec.FeatHostBehavior, spec.SelectCurrent, 0, b); err != nil {
		return err
	}
	var behavior spec.HostBehavior
	behavior.Get(b)
	behavior.ExtendedLBAFormats = true
	behavior.Put(b)
	_, err = n.c.SetFeature(ctx, spec.FeatHostBehavior, 0, 0, b)
	return err
}

// refMask are the bits of the storage and reference space that are the reference tag.
func (m *Metadata) refMask() uint64 { return 1<<(m.Guard.SpaceBits()-m.StorageTag) - 1 }

// space is the storage and reference space of the block that n blocks follow the first one.
func (m *Metadata) space(p *Protection, n uint64) uint64 {
	ref := p.RefTag
	if m.Protection != 3 {
		ref += n
	}
	return p.StorageTag<<(m.Guard.SpaceBits()-m.StorageTag) | ref&m.refMask()
}

// Fill makes the protection information of blocks as the controller does with p.Action: for a host that gives it along.
func (m Metadata) Fill(data, metadata []byte, p Protection) {
	if m.Protection == 0 || m.Size == 0 {
		return
	}
	blocks := len(metadata) / m.Size
	if blocks == 0 {
		return
	}
	size, at := len(data)/blocks, m.Size-m.Guard.Size()
	for i := range blocks {
		own := metadata[i*m.Size:][:m.Size]
		t := spec.Protection{Guard: m.Guard.Compute(data[i*size:][:size], own[:at]), AppTag: p.AppTag, Space: m.space(&p, uint64(i))}
		t.Put(own[at:], m.Guard)
	}
}

// stripped says whether the host has no metadata.
func (m *Metadata) stripped(p *Protection) bool {
	return m.Size == 0 || m.Protection != 0 && p.Action && m.Size == m.Guard.Size()
}

// ask puts what p says of blocks from n on into a command.
func (m *Metadata) ask(cmd *spec.SubmissionEntry, p *Protection, n uint64) {
	if m.Protection == 0 {
		return
	}
	for _, c := range []struct {
		set bool
		bit uint32
	}{
		{p.Action, spec.RWAction}, {p.CheckGuard, spec.RWCheckGuard}, {p.CheckAppTag, spec.RWCheckAppTag},
		{p.CheckRefTag, spec.RWCheckRefTag}, {p.CheckStorageTag, spec.RWStorageTagCheck},
	} {
		if c.set {
			cmd.CDW12 |= c.bit
		}
	}
	cmd.SetReferenceSpace(m.space(p, n))
	cmd.SetAppTag(p.AppTag, p.AppMask)
}

// automatic is what the methods without Protection ask for: the controller makes and checks what there is.
func (m *Metadata) automatic(lba uint64) Protection {
	return Protection{Action: true, CheckGuard: true, CheckRefTag: m.Protection != 3, RefTag: lba & m.refMask()}
}

// plain fails methods that have no place for metadata, where the controller does not do without.
func (n *Namespace) plain() error {
	p := n.metadata.automatic(0)
	if !n.metadata.stripped(&p) {
		return fmt.Errorf("%w: metadata of %d bytes; there are ReadBlocks and others", ErrUnsupported, n.metadata.Size)
	}
	return nil
}
