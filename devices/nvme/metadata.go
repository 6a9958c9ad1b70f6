package nvme

import (
	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// The metadata of all blocks is stored behind the last one, without gaps. It is read and
// written in units of the block size, as the storage may take nothing smaller; so blocks
// whose metadata shares a unit exclude each other as if they were the same.

// metadataBytes is the size of the metadata of n blocks.
func (ns *namespace) metadataBytes(n uint64) uint64 { return n * uint64(ns.protection.metadata) }

// stored is how much of the storage is in use.
func (ns *namespace) stored() int64 { return ns.bytes(ns.blocks + ns.format.metadataBlocks(ns.blocks)) }

// hold keeps others away from blocks and their metadata, from all that write or, if the
// caller writes, from all.
func (ns *namespace) hold(lba, n uint64, shared bool) *lockedRange {
	r := &lockedRange{
		first: ns.metadataBytes(lba) >> ns.shift, end: (ns.metadataBytes(lba+n)-1)>>ns.shift + 1, shared: shared,
	}
	ns.inUse.lock(r)
	return r
}

// blockBuffers is the courier's memory for n blocks.
func (c *courier) blockBuffers(ns *namespace, n uint64) (data, metadata []byte) {
	size := ns.bytes(n)
	b := c.buffer(int(size) + int(ns.metadataBytes(n)))
	return b[:size:size], b[size:]
}

// load reads blocks with their metadata.
func (c *courier) load(ns *namespace, lba uint64, data, metadata []byte) spec.Status {
	r := ns.hold(lba, uint64(len(data))>>ns.shift, true)
	defer ns.inUse.unlock(r)
	st := c.submit(ns, block.Request{Op: block.Read, Offset: ns.bytes(lba), Length: int64(len(data)), Buffers: [][]byte{data}})
	if !st.OK() {
		return st
	}
	units, at := c.metadataUnits(ns, ns.metadataBytes(lba), len(metadata))
	if st := c.moveUnits(ns, block.Read, ns.metadataBytes(lba)-uint64(at), units, false); !st.OK() {
		return st
	}
	copy(metadata, units[at:])
	ns.protection.invert(metadata)
	return spec.Success
}

// save writes blocks with their metadata, which is not what it was afterwards.
func (c *courier) save(ns *namespace, lba uint64, data, metadata []byte, fua bool) spec.Status {
	return c.change(ns, lba, uint64(len(data))>>ns.shift, func() spec.Status {
		st := c.submit(ns, block.Request{Op: block.Write, Offset: ns.bytes(lba), Length: int64(len(data)), Buffers: [][]byte{data}, FUA: fua})
		if !st.OK() {
			return st
		}
		return c.saveMetadata(ns, lba, metadata, fua)
	})
}

// change lets f write blocks, which are readable then.
func (c *courier) change(ns *namespace, lba, n uint64, f func() spec.Status) spec.Status {
	u := &c.h.c.subsystem.uncorrectable
	if !u.writable(ns, lba, n) {
		return spec.WriteFault
	}
	r := ns.hold(lba, n, false)
	defer ns.inUse.unlock(r)
	st := f()
	if st.OK() {
		u.written(ns, lba, n)
	}
	return st
}

// saveMetadata writes metadata of blocks that are held.
func (c *courier) saveMetadata(ns *namespace, lba uint64, metadata []byte, fua bool) spec.Status {
	ns.protection.invert(metadata)
	return c.patchMetadata(ns, ns.metadataBytes(lba), metadata, fua)
}

// clearMetadata makes metadata of blocks that are held what it is before the first write.
func (c *courier) clearMetadata(ns *namespace, lba, n uint64, fua bool) spec.Status {
	unit := uint64(1) << ns.shift
	from, to := ns.metadataBytes(lba), ns.metadataBytes(lba+n)
	inner, innerEnd := (from+unit-1)&^(unit-1), to&^(unit-1)
	if inner >= innerEnd && inner != innerEnd || inner > to {
		return c.patchMetadata(ns, from, zeroBlock[:to-from], fua)
	}
	if st := c.patchMetadata(ns, from, zeroBlock[:inner-from], fua); !st.OK() {
		return st
	}
	if inner < innerEnd {
		st := c.submit(ns, block.Request{
			Op: block.WriteZeroes, Offset: ns.bytes(ns.blocks) + int64(inner), Length: int64(innerEnd - inner), FUA: fua, Deallocate: true,
		})
		if !st.OK() {
			return st
		}
	}
	return c.patchMetadata(ns, innerEnd, zeroBlock[:to-innerEnd], fua)
}

var zeroBlock [pageSize]byte // is never written

// patchMetadata writes a part of the stored metadata, whose units are held: those of which
// it is not all are read before.
func (c *courier) patchMetadata(ns *namespace, from uint64, p []byte, fua bool) spec.Status {
	if len(p) == 0 {
		return spec.Success
	}
	units, at := c.metadataUnits(ns, from, len(p))
	from -= uint64(at)
	unit, rest := 1<<ns.shift, len(units)-at-len(p)
	last := len(units) - unit
	if at > 0 || rest > 0 && last == 0 {
		if st := c.moveUnits(ns, block.Read, from, units[:unit], false); !st.OK() {
			return st
		}
	}
	if rest > 0 && last > 0 {
		if st := c.moveUnits(ns, block.Read, from+uint64(last), units[last:], false); !st.OK() {
			return st
		}
	}
	copy(units[at:], p)
	return c.moveUnits(ns, block.Write, from, units, fua)
}

// metadataUnits is memory for the units that n bytes of metadata are in, from at on.
func (c *courier) metadataUnits(ns *namespace, from uint64, n int) (units []byte, at int) {
	mask := 1<<ns.shift - 1
	at = int(from) & mask
	size := (at + n + mask) &^ mask
	if cap(c.units) < size {
		c.units = make([]byte, size)
	}
	return c.units[:size], at
}

func (c *courier) moveUnits(ns *namespace, op block.Op, from uint64, units []byte, fua bool) spec.Status {
	return c.submit(ns, block.Request{
		Op: op, Offset: ns.bytes(ns.blocks) + int64(from), Length: int64(len(units)), Buffers: [][]byte{units}, FUA: fua,
	})
}

// deallocate gives blocks back. Where the storage cannot do that, nothing changes: neither
// the data, nor what protects it.
func (c *courier) deallocate(ns *namespace, lba, n uint64) spec.Status {
	if ns.protection.metadata == 0 {
		return c.submit(ns, block.Request{Op: block.Discard, Offset: ns.bytes(lba), Length: ns.bytes(n)})
	}
	if !ns.info.CanDiscard {
		return spec.Success
	}
	r := ns.hold(lba, n, false)
	defer ns.inUse.unlock(r)
	st := c.submit(ns, block.Request{Op: block.WriteZeroes, Offset: ns.bytes(lba), Length: ns.bytes(n), Deallocate: true})
	if !st.OK() {
		return st
	}
	return c.clearMetadata(ns, lba, n, false)
}
