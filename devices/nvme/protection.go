package nvme

import (
	"vfiouser/devices/nvme/spec"
)

// protection is how the metadata of a namespace protects its blocks (NVM command set 1.0,
// 5.2). It is in the last bytes of the metadata, and nothing is behind it.
type protection struct {
	kind      uint8 // type 1 to 3, 0: blocks are not protected
	guard     spec.Guard
	blockSize int
	metadata  int    // bytes of a block
	at        int    // in the metadata
	space     uint64 // bits of the storage and reference space
	reference uint64 // those of them that are the reference tag
}

func (f format) protect() protection {
	b := &blockFormats[f.index]
	p := protection{kind: f.protection, guard: b.guard, blockSize: 1 << b.shift, metadata: int(b.metadata)}
	p.at = p.metadata - p.guard.Size()
	p.space = 1<<p.guard.SpaceBits() - 1
	p.reference = p.space >> b.storageTag
	return p
}

// expectation is what a command says of the protection information of its blocks.
type expectation struct {
	action      bool // PRACT
	guard       bool // is checked
	app         bool
	reference   bool
	storage     bool
	space       uint64 // the storage tag, and the reference tag of the first block
	tag, unmask uint16 // of the application
}

// expects reads it out of a command that has it where Read and Write do.
func (p *protection) expects(e *spec.SubmissionEntry) expectation {
	c := expectation{
		action: e.CDW12&spec.RWAction != 0, guard: e.CDW12&spec.RWCheckGuard != 0, app: e.CDW12&spec.RWCheckAppTag != 0,
		reference: e.CDW12&spec.RWCheckRefTag != 0, storage: e.CDW12&spec.RWStorageTagCheck != 0,
		space: e.ReferenceSpace(p.guard),
	}
	c.tag, c.unmask = e.AppTag()
	return c
}

// expectsOfSource is what Copy says of a source range.
func (p *protection) expectsOfSource(e *spec.SubmissionEntry, r *spec.CopyRange) expectation {
	info := e.CDW12 >> spec.CopyReadInfoShift << spec.RWInfoShift
	return expectation{
		action: info&spec.RWAction != 0, guard: info&spec.RWCheckGuard != 0, app: info&spec.RWCheckAppTag != 0,
		reference: info&spec.RWCheckRefTag != 0, storage: e.CDW12&spec.CopyStorageTagCheckRead != 0,
		space: r.Space & p.space, tag: r.AppTag, unmask: r.AppMask,
	}
}

// checks says whether anything is to be checked.
func (x *expectation) checks() bool { return x.guard || x.app || x.reference || x.storage }

// validate refuses checks of the reference tag that the type does not have, or for type 1
// another tag than the block's number.
func (p *protection) validate(c *expectation, lba uint64) spec.Status {
	if p.kind == 0 || !c.reference || p.reference == 0 {
		return spec.Success
	}
	if p.kind == 3 || p.kind == 1 && (c.space^lba)&p.reference != 0 {
		return spec.InvalidProtectionInfo | spec.StatusDNR
	}
	return spec.Success
}

// advance is the tags of the block that n blocks follow the one with space.
func (p *protection) advance(space, n uint64) uint64 {
	if p.kind == 3 {
		return space
	}
	return space&^p.reference | (space+n)&p.reference
}

// escaped says whether a block is not to be checked.
func (p *protection) escaped(t *spec.Protection) bool {
	return t.AppTag == spec.AppTagEscape && (p.kind != 3 || t.Space&p.reference == p.reference)
}

// check compares the protection information of blocks with their data and what a command
// expects. bad is the first block that is wrong.
func (p *protection) check(c *expectation, data, metadata []byte) (bad int, st spec.Status) {
	if p.kind == 0 || !c.checks() {
		return 0, spec.Success
	}
	want := c.space
	for ; len(data) > 0; bad++ {
		var t spec.Protection
		t.Get(metadata[p.at:], p.guard)
		if !p.escaped(&t) {
			switch {
			case c.guard && t.Guard != p.guard.Compute(data[:p.blockSize], metadata[:p.at]):
				return bad, spec.GuardCheck | spec.StatusDNR
			case c.app && (t.AppTag^c.tag)&c.unmask != 0:
				return bad, spec.AppTagCheck | spec.StatusDNR
			case c.storage && (t.Space^want)&^p.reference != 0:
				return bad, spec.StorageTagCheck | spec.StatusDNR
			case c.reference && (t.Space^want)&p.reference != 0:
				return bad, spec.RefTagCheck | spec.StatusDNR
			}
		}
		want = p.advance(want, 1)
		data, metadata = data[p.blockSize:], metadata[p.metadata:]
	}
	return 0, spec.Success
}

// insert makes the protection information of blocks.
func (p *protection) insert(c *expectation, data, metadata []byte) {
	t := spec.Protection{AppTag: c.tag, Space: c.space & p.space}
	for ; len(data) > 0; data, metadata = data[p.blockSize:], metadata[p.metadata:] {
		t.Guard = p.guard.Compute(data[:p.blockSize], metadata[:p.at])
		t.Put(metadata[p.at:], p.guard)
		t.Space = p.advance(t.Space, 1)
	}
}

// stripped says whether the host has no metadata: it is nothing but protection information
// that the controller makes and checks.
func (p *protection) stripped(c *expectation) bool { return p.kind != 0 && c.action && p.at == 0 }

// invert turns metadata into what is stored, and back: with the bits of the protection
// information inverted, storage that was never written, or given back, holds the
// information of a block that is not checked (3.2.3.2.1).
func (p *protection) invert(metadata []byte) {
	if p.kind == 0 {
		return
	}
	for ; len(metadata) > 0; metadata = metadata[p.metadata:] {
		b := metadata[p.at:p.metadata]
		for i := range b {
			b[i] = ^b[i]
		}
	}
}
