package nvme

import (
	"bytes"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// pieceSize is how much a courier reads at a time of blocks that do not go to the host.
const pieceSize = 256 << 10

// prepareCompare is Compare (NVM command set 1.0, 3.2.1): the data of the host must be
// what the blocks hold.
func (c *Controller) prepareCompare(cmd *command) (plan, spec.Status) {
	if st := c.locate(cmd); !st.OK() {
		return 0, st
	}
	if cmd.ns.transferSize(&cmd.entry, uint64(cmd.entry.Blocks())) > int64(c.cfg.MaxTransfer) {
		return 0, spec.InvalidField | spec.StatusDNR
	}
	if st := cmd.ns.protection.admits(&cmd.entry); !st.OK() {
		return 0, st
	}
	return planSlow, c.checkReadable(cmd)
}

// prepareVerify is Verify (3.2.6): the blocks must be readable. No data is transferred,
// so the transfer size does not limit it.
func (c *Controller) prepareVerify(cmd *command) (plan, spec.Status) {
	if st := c.locate(cmd); !st.OK() {
		return 0, st
	}
	if st := cmd.ns.protection.admits(&cmd.entry); !st.OK() {
		return 0, st
	}
	return planSlow, c.checkReadable(cmd)
}

func (c *courier) compare(cmd *command) spec.Status {
	ns, lba, n := cmd.ns, cmd.entry.LBA(), uint64(cmd.entry.Blocks())
	want := c.buffer(int(ns.bytes(n)))
	if st := c.fromHost(&cmd.entry, want); !st.OK() {
		return st
	}
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	c.h.c.smart.add(&ioStats{reads: 1, bytesRead: uint64(len(want))})
	return ns.whole(lba, n, func() spec.Status { return c.differs(cmd, want) })
}

// differs looks for the first block that does not hold what is wanted.
func (c *courier) differs(cmd *command, want []byte) spec.Status {
	ns, lba := cmd.ns, cmd.entry.LBA()
	return c.inspect(cmd, lba, uint64(cmd.entry.Blocks()), func(at int64, have []byte) spec.Status {
		wanted := want[at:][:len(have)]
		if bytes.Equal(have, wanted) {
			return spec.Success
		}
		i := 0
		for have[i] == wanted[i] {
			i++
		}
		cmd.failedAt(lba + uint64(at+int64(i))>>ns.shift)
		return spec.CompareFailure | spec.StatusDNR
	})
}

// verify reads up to 65,536 blocks with one small command: one at a time.
func (c *courier) verify(cmd *command) spec.Status {
	c.h.couriers.bulk.Lock()
	defer c.h.couriers.bulk.Unlock()
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	n := uint64(cmd.entry.Blocks())
	c.h.c.smart.bytesRead.Add(uint64(cmd.ns.bytes(n)))
	return c.inspect(cmd, cmd.entry.LBA(), n, func(int64, []byte) spec.Status { return spec.Success })
}

// inspect reads n blocks from lba and shows them to look, in pieces, with their distance
// from the first one in bytes.
func (c *courier) inspect(cmd *command, lba, n uint64, look func(at int64, p []byte) spec.Status) spec.Status {
	ns := cmd.ns
	if c.piece == nil {
		c.piece = make([]byte, pieceSize)
	}
	for at, end := int64(0), ns.bytes(n); at < end; {
		if c.abandoned() {
			return spec.AbortSQDeletion
		}
		p := c.piece[:min(pieceSize, end-at)]
		st := c.submit(ns, block.Request{Op: block.Read, Offset: ns.bytes(lba) + at, Length: int64(len(p)), Buffers: [][]byte{p}})
		if !st.OK() {
			cmd.failedAt(lba + uint64(at)>>ns.shift)
			return st
		}
		if st := look(at, p); !st.OK() {
			return st
		}
		at += int64(len(p))
	}
	return spec.Success
}
