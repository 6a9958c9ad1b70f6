package nvme

import (
	"bytes"

	"vfiouser/devices/nvme/spec"
)

// metadataCommand is what couriers do instead where blocks have metadata.
func metadataCommand(opcode uint8) func(*courier, *command) spec.Status {
	switch opcode {
	case spec.NVMRead:
		return (*courier).readBlocks
	case spec.NVMWrite:
		return (*courier).writeBlocks
	case spec.NVMWriteZeroes:
		return (*courier).zeroBlocks
	case spec.NVMCompare:
		return (*courier).compareBlocks
	case spec.NVMVerify:
		return (*courier).verifyBlocks
	case spec.NVMCopy:
		return (*courier).copyBlocks
	}
	return nil
}

// transferSize is how much data a command on n blocks moves, which metadata adds to if it
// is in the same buffer.
func (ns *namespace) transferSize(e *spec.SubmissionEntry, n uint64) int64 {
	size := ns.bytes(n)
	if ns.format.extended {
		if x := ns.protection.expects(e); !ns.protection.stripped(&x) {
			size += int64(ns.metadataBytes(n))
		}
	}
	return size
}

// admits says whether a command may ask for what it says of protection information.
func (p *protection) admits(e *spec.SubmissionEntry) spec.Status {
	if p.kind == 0 {
		return spec.Success
	}
	x := p.expects(e)
	switch {
	case e.Opcode == spec.NVMVerify && x.action,
		e.Opcode == spec.NVMCopy && x.action != p.expectsOfSource(e, &spec.CopyRange{}).action:
		return spec.InvalidField | spec.StatusDNR
	case e.Opcode == spec.NVMCompare && x.action, e.Opcode == spec.NVMWriteZeroes && x.checks():
		return spec.InvalidProtectionInfo | spec.StatusDNR
	}
	return p.validate(&x, e.LBA())
}

// checkBlocks checks the protection information of blocks from lba.
func (c *courier) checkBlocks(cmd *command, x *expectation, lba uint64, data, metadata []byte) spec.Status {
	bad, st := cmd.ns.protection.check(x, data, metadata)
	if !st.OK() {
		cmd.failedAt(lba + uint64(bad))
		c.h.c.smart.mediaErrors.Add(1)
	}
	return st
}

func (c *courier) readBlocks(cmd *command) spec.Status {
	ns, lba := cmd.ns, cmd.entry.LBA()
	data, metadata := c.blockBuffers(ns, uint64(cmd.entry.Blocks()))
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	if st := c.load(ns, lba, data, metadata); !st.OK() {
		return st
	}
	c.release()
	x := ns.protection.expects(&cmd.entry)
	if st := c.checkBlocks(cmd, &x, lba, data, metadata); !st.OK() {
		return st
	}
	return c.deliver(cmd, data, metadata, ns.protection.stripped(&x))
}

func (c *courier) writeBlocks(cmd *command) spec.Status {
	ns, lba := cmd.ns, cmd.entry.LBA()
	data, metadata := c.blockBuffers(ns, uint64(cmd.entry.Blocks()))
	x := ns.protection.expects(&cmd.entry)
	if st := c.fetch(cmd, data, metadata, ns.protection.stripped(&x)); !st.OK() {
		return st
	}
	if st := c.protect(cmd, &x, lba, data, metadata); !st.OK() {
		return st
	}
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	return c.save(ns, lba, data, metadata, cmd.request.FUA)
}

// protect checks the protection information of blocks that are to be written at lba, or
// makes it.
func (c *courier) protect(cmd *command, x *expectation, lba uint64, data, metadata []byte) spec.Status {
	if p := &cmd.ns.protection; p.kind != 0 && x.action {
		p.insert(x, data, metadata)
		return spec.Success
	}
	return c.checkBlocks(cmd, x, lba, data, metadata)
}

// zeroBlocks writes up to 65,536 blocks with one small command: one at a time.
func (c *courier) zeroBlocks(cmd *command) spec.Status {
	c.h.couriers.bulk.Lock()
	defer c.h.couriers.bulk.Unlock()
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	ns, lba, n, r := cmd.ns, cmd.entry.LBA(), uint64(cmd.entry.Blocks()), cmd.request
	r.Buffers = nil
	r.Deallocate = r.Deallocate && ns.info.CanDiscard
	return c.change(ns, lba, n, func() spec.Status {
		st := c.submit(ns, r)
		if !st.OK() {
			return st
		}
		if r.Deallocate || ns.protection.kind == 0 {
			return c.clearMetadata(ns, lba, n, r.FUA)
		}
		x := ns.protection.expects(&cmd.entry)
		return c.zeroMetadata(ns, lba, n, &x, r.FUA)
	})
}

// zeroMetadata writes the metadata of blocks of zeroes: zeroes too, but for protection
// information that is asked for (NVM command set 1.0, 3.2.8).
func (c *courier) zeroMetadata(ns *namespace, lba, n uint64, x *expectation, fua bool) spec.Status {
	p := &ns.protection
	t := spec.Protection{
		Guard: p.guard.Compute(zeroBlock[:p.blockSize], zeroBlock[:p.at]), AppTag: x.tag, Space: x.space & p.space,
	}
	for n > 0 {
		k := min(n, pieceSize/uint64(p.metadata))
		b := c.buffer(int(ns.metadataBytes(k)))
		clear(b)
		for i := 0; x.action && i < len(b); i += p.metadata {
			t.Put(b[i+p.at:], p.guard)
			t.Space = p.advance(t.Space, 1)
		}
		if st := c.saveMetadata(ns, lba, b, fua); !st.OK() {
			return st
		}
		lba, n = lba+k, n-k
	}
	return spec.Success
}

// compareBlocks checks the protection information of both sides and compares all but that
// (3.2.1).
func (c *courier) compareBlocks(cmd *command) spec.Status {
	ns, lba, n := cmd.ns, cmd.entry.LBA(), uint64(cmd.entry.Blocks())
	p := &ns.protection
	data, metadata := c.blockBuffers(ns, 2*n)
	want, have := data[:len(data)/2], data[len(data)/2:]
	wantMeta, haveMeta := metadata[:len(metadata)/2], metadata[len(metadata)/2:]
	x := p.expects(&cmd.entry)
	if st := c.fetch(cmd, want, wantMeta, false); !st.OK() {
		return st
	}
	if st := c.checkBlocks(cmd, &x, lba, want, wantMeta); !st.OK() {
		return st
	}
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	c.h.c.smart.add(&ioStats{reads: 1, bytesRead: uint64(len(have))})
	if st := c.load(ns, lba, have, haveMeta); !st.OK() {
		cmd.failedAt(lba)
		return st
	}
	if st := c.checkBlocks(cmd, &x, lba, have, haveMeta); !st.OK() {
		return st
	}
	compared := p.metadata
	if p.kind != 0 {
		compared = p.at
	}
	for i := range int(n) {
		d, m := i*p.blockSize, i*p.metadata
		if !bytes.Equal(want[d:d+p.blockSize], have[d:d+p.blockSize]) || !bytes.Equal(wantMeta[m:m+compared], haveMeta[m:m+compared]) {
			cmd.failedAt(lba + uint64(i))
			return spec.CompareFailure | spec.StatusDNR
		}
	}
	return spec.Success
}

func (c *courier) verifyBlocks(cmd *command) spec.Status {
	c.h.couriers.bulk.Lock()
	defer c.h.couriers.bulk.Unlock()
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	ns, lba, n := cmd.ns, cmd.entry.LBA(), uint64(cmd.entry.Blocks())
	c.h.c.smart.bytesRead.Add(uint64(ns.bytes(n)))
	x := ns.protection.expects(&cmd.entry)
	for n > 0 {
		if c.abandoned() {
			return spec.AbortSQDeletion
		}
		k := min(n, pieceSize>>ns.shift)
		data, metadata := c.blockBuffers(ns, k)
		if st := c.load(ns, lba, data, metadata); !st.OK() {
			cmd.failedAt(lba)
			return st
		}
		if st := c.checkBlocks(cmd, &x, lba, data, metadata); !st.OK() {
			return st
		}
		x.space = ns.protection.advance(x.space, k)
		lba, n = lba+k, n-k
	}
	return spec.Success
}

// copyBlocks is copy with metadata: what PRINFOR asks for happens to what is read, and
// PRINFOW to what is written (5.2.2.5).
func (c *courier) copyBlocks(cmd *command) spec.Status {
	ranges, total, st := c.beginCopy(cmd)
	if !st.OK() {
		return st
	}
	ns, p := cmd.ns, &cmd.ns.protection
	data, metadata := c.blockBuffers(ns, total)
	d, m := data, metadata
	for i := range ranges {
		if c.abandoned() {
			return spec.AbortSQDeletion
		}
		r, n := &ranges[i], uint64(ranges[i].Blocks)
		x := p.expectsOfSource(&cmd.entry, r)
		if st := p.validate(&x, r.LBA); !st.OK() {
			cmd.failedAt(r.LBA)
			return st
		}
		if st := c.load(ns, r.LBA, d[:ns.bytes(n)], m[:ns.metadataBytes(n)]); !st.OK() {
			cmd.failedAt(r.LBA)
			return st
		}
		if st := c.checkBlocks(cmd, &x, r.LBA, d[:ns.bytes(n)], m[:ns.metadataBytes(n)]); !st.OK() {
			return st
		}
		d, m = d[ns.bytes(n):], m[ns.metadataBytes(n):]
	}
	lba, x := cmd.entry.LBA(), p.expects(&cmd.entry)
	if st := c.protect(cmd, &x, lba, data, metadata); !st.OK() {
		return st
	}
	c.h.c.smart.add(&ioStats{writes: 1, bytesWritten: uint64(len(data))})
	return c.save(ns, lba, data, metadata, cmd.entry.CDW12&spec.RWForceUnit != 0 || c.h.c.writeThrough.Load())
}
