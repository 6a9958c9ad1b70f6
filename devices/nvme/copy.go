package nvme

import (
	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// maxCopyRanges is the number of source ranges of a Copy: their descriptors fill a page.
const maxCopyRanges = pageSize / spec.CopyRangeSize

// maxCopy is the number of blocks that one Copy moves, and that one of its ranges has: as
// many as a transfer, so that all are read before the first is written.
func (c *Controller) maxCopy(ns *namespace) uint64 { return uint64(c.cfg.MaxTransfer) >> ns.shift }

// prepareCopy is Copy (NVM command set 1.0, 3.2.2) with source ranges of format 0, or 1,
// which guards of 64 bits need.
func (c *Controller) prepareCopy(cmd *command) (plan, spec.Status) {
	ns, kind := c.served(cmd.entry.NSID), cmd.entry.CopyFormat()
	switch {
	case ns == nil:
		return 0, c.absent(cmd.entry.NSID)
	case kind > 1:
		return 0, spec.InvalidField | spec.StatusDNR
	case ns.protection.kind != 0 && (kind == 1) != (ns.protection.guard == spec.Guard64):
		return 0, spec.InvalidNamespaceOrFormat | spec.StatusDNR
	case cmd.entry.CopyRanges() > maxCopyRanges:
		return 0, spec.CommandSizeLimitsExceeded | spec.StatusDNR
	case ns.info.ReadOnly:
		return 0, spec.NamespaceWriteProtected | spec.StatusDNR
	}
	cmd.ns = ns
	return planSlow, ns.protection.admits(&cmd.entry)
}

// beginCopy fetches the source ranges, passes the gate, and returns the number of blocks to copy.
func (c *courier) beginCopy(cmd *command) (ranges []spec.CopyRange, total uint64, st spec.Status) {
	if ranges, st = c.copyRanges(cmd); !st.OK() {
		return nil, 0, st
	}
	if st = c.pass(cmd); !st.OK() {
		return nil, 0, st
	}
	total, st = c.checkCopy(cmd, ranges)
	return ranges, total, st
}

// copy reads all ranges and then writes them with one request, so that source and
// destination may overlap, and a failure leaves the destination as it was.
func (c *courier) copy(cmd *command) spec.Status {
	ranges, total, st := c.beginCopy(cmd)
	if !st.OK() {
		return st
	}
	ns, data := cmd.ns, c.buffer(int(cmd.ns.bytes(total)))
	at := int64(0)
	for _, r := range ranges {
		if c.abandoned() {
			return spec.AbortSQDeletion
		}
		p := data[at:][:ns.bytes(uint64(r.Blocks))]
		st := ns.whole(r.LBA, uint64(r.Blocks), func() spec.Status {
			return c.submit(ns, block.Request{Op: block.Read, Offset: ns.bytes(r.LBA), Length: int64(len(p)), Buffers: [][]byte{p}})
		})
		if !st.OK() {
			cmd.failedAt(r.LBA)
			return st
		}
		at += int64(len(p))
	}
	c.h.c.smart.add(&ioStats{writes: 1, bytesWritten: uint64(len(data))})
	to := cmd.entry.LBA()
	return ns.whole(to, total, func() spec.Status {
		return c.store(ns, block.Request{
			Op: block.Write, Offset: ns.bytes(to), Length: int64(len(data)), Buffers: [][]byte{data},
			FUA: cmd.entry.CDW12&spec.RWForceUnit != 0 || c.h.c.writeThrough.Load(),
		})
	})
}

// copyRanges takes the source ranges from the host.
func (c *courier) copyRanges(cmd *command) ([]spec.CopyRange, spec.Status) {
	ranges, size := make([]spec.CopyRange, cmd.entry.CopyRanges()), spec.CopyRangeSize
	get := (*spec.CopyRange).Get
	if cmd.entry.CopyFormat() == 1 {
		size, get = spec.CopyRange64Size, (*spec.CopyRange).Get64
	}
	list := make([]byte, len(ranges)*size)
	if st := c.fromHost(&cmd.entry, list); !st.OK() {
		return nil, st
	}
	for i := range ranges {
		get(&ranges[i], list[i*size:])
	}
	return ranges, spec.Success
}

// checkCopy returns the number of blocks to copy.
func (c *courier) checkCopy(cmd *command, ranges []spec.CopyRange) (total uint64, st spec.Status) {
	ns, limit := cmd.ns, c.h.c.maxCopy(cmd.ns)
	for _, r := range ranges {
		if uint64(r.Blocks) > limit {
			return 0, spec.CommandSizeLimitsExceeded | spec.StatusDNR
		}
		total += uint64(r.Blocks)
	}
	if total > limit {
		return 0, spec.CommandSizeLimitsExceeded | spec.StatusDNR
	}
	if !ns.has(cmd.entry.LBA(), total) {
		return 0, spec.LBAOutOfRange | spec.StatusDNR
	}
	for _, r := range ranges {
		if !ns.has(r.LBA, uint64(r.Blocks)) {
			cmd.failedAt(r.LBA)
			return 0, spec.LBAOutOfRange | spec.StatusDNR
		}
	}
	for _, r := range ranges {
		if bad, found := c.h.c.subsystem.uncorrectable.first(ns, r.LBA, uint64(r.Blocks)); found {
			cmd.failedAt(bad)
			return 0, spec.UnrecoveredRead | spec.StatusDNR
		}
	}
	return total, spec.Success
}
