package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// maxCommandBlocks is how many blocks one command can name.
const maxCommandBlocks = 1 << 16

// Compare compares p with what is at off; both must consist of whole blocks. The error is spec.CompareFailure if they
// differ.
func (n *Namespace) Compare(ctx context.Context, p []byte, off int64) error {
	return n.eachPart(ctx, spec.NVMCompare, spec.ONCSCompare, "compare", off, int64(len(p)), p)
}

// Verify has the controller read length bytes at off, in whole blocks, and keep them to itself. The error is
// spec.UnrecoveredRead if they cannot be read.
func (n *Namespace) Verify(ctx context.Context, off, length int64) error {
	return n.eachPart(ctx, spec.NVMVerify, spec.ONCSVerify, "verify", off, length, nil)
}

// WriteUncorrectable makes length bytes at off, whole blocks, unreadable until they are written again.
func (n *Namespace) WriteUncorrectable(ctx context.Context, off, length int64) error {
	return n.eachPart(ctx, spec.NVMWriteUncorrectable, spec.ONCSWriteUncorrectable, "write uncorrectable", off, length, nil)
}

// WriteDurable writes p at off, whole blocks, which are durable when it returns (Force Unit Access).
func (n *Namespace) WriteDurable(ctx context.Context, p []byte, off int64) error {
	return n.eachPartWith(ctx, spec.NVMWrite, spec.RWForceUnit, "write", off, int64(len(p)), p)
}

// eachPart runs a command on blocks, of which one command takes so many, with their data if there is some.
func (n *Namespace) eachPart(ctx context.Context, opcode uint8, oncs uint16, what string, off, length int64, data []byte) error {
	if n != nil && n.c.identity.ONCS&oncs == 0 {
		return fmt.Errorf("%w: %s", ErrUnsupported, what)
	}
	return n.eachPartWith(ctx, opcode, 0, what, off, length, data)
}

// eachPartWith is eachPart of what every controller has, with bits of CDW12.
func (n *Namespace) eachPartWith(ctx context.Context, opcode uint8, bits uint32, what string, off, length int64, data []byte) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	lba, blocks, err := n.blocks(off, length)
	if err != nil {
		return err
	}
	most := uint64(maxCommandBlocks)
	if data != nil && n.metadata.Size > 0 {
		return fmt.Errorf("%w: %s of blocks with metadata; there is CompareBlocks", ErrUnsupported, what)
	}
	if data != nil {
		most = min(most, uint64(x.q.size)>>n.shift)
	}
	for blocks > 0 {
		count := min(blocks, most)
		cmd := spec.SubmissionEntry{Opcode: opcode, CDW12: uint32(count-1) | bits}
		cmd.SetLBA(lba)
		var part []byte
		if data != nil {
			part, data = data[:count<<n.shift], data[count<<n.shift:]
		}
		if err := n.do(ctx, x, &cmd, part); err != nil {
			return n.explain(what, err)
		}
		lba, blocks = lba+count, blocks-count
	}
	return nil
}

// Copy copies ranges of the namespace, one behind the other, to what begins at to, without moving the data through the
// host. The controller checks protection information, if there is some, and makes it anew. All consist of whole blocks. It may take several commands: if it fails, the first ones may have been carried out,
// and what they wrote is what later ones read, if source and destination overlap.
func (n *Namespace) Copy(ctx context.Context, to int64, ranges ...Range) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	id := &n.identity
	if n.c.identity.ONCS&spec.ONCSCopy == 0 || id.MSSRL == 0 || id.MCL == 0 {
		return fmt.Errorf("%w: copy", ErrUnsupported)
	}
	parts, total, err := n.copyRanges(ranges)
	if err != nil {
		return err
	}
	lba, _, err := n.blocks(to, total)
	if err != nil {
		return err
	}
	size, put, format := spec.CopyRangeSize, (*spec.CopyRange).Put, uint32(0)
	if n.metadata.Guard == spec.Guard64 {
		size, put, format = spec.CopyRange64Size, (*spec.CopyRange).Put64, spec.CopyFormat1
	}
	most := min(int(id.MSRC)+1, int(x.q.size)/size)
	for len(parts) > 0 {
		count, blocks := 0, uint64(0)
		for count < min(most, len(parts)) && blocks+uint64(parts[count].Blocks) <= uint64(id.MCL) {
			blocks += uint64(parts[count].Blocks)
			count++
		}
		list := make([]byte, count*size)
		for i := range count {
			if n.metadata.Protection > 0 {
				parts[i].Space = parts[i].LBA & n.metadata.refMask()
			}
			put(&parts[i], list[i*size:])
		}
		cmd := spec.SubmissionEntry{Opcode: spec.NVMCopy, CDW12: uint32(count-1) | format}
		cmd.SetLBA(lba)
		if n.metadata.Protection > 0 {
			p := n.metadata.automatic(lba)
			p.CheckRefTag = n.metadata.Protection == 1 // of type 2 it may be any number
			n.metadata.ask(&cmd, &p, 0)
			cmd.CDW12 |= cmd.CDW12 >> spec.RWInfoShift & 0xf << spec.CopyReadInfoShift
		}
		if err := n.do(ctx, x, &cmd, list); err != nil {
			return n.explain("copy", err)
		}
		lba, parts = lba+blocks, parts[count:]
	}
	return nil
}

// copyRanges cuts ranges into such as one command takes. total is in bytes.
func (n *Namespace) copyRanges(ranges []Range) (parts []spec.CopyRange, total int64, err error) {
	most := uint64(min(uint32(n.identity.MSSRL), n.identity.MCL))
	for _, r := range ranges {
		lba, blocks, err := n.blocks(r.Offset, r.Length)
		if err != nil {
			return nil, 0, err
		}
		if total += r.Length; total > n.Size() {
			return nil, 0, fmt.Errorf("%w: ranges of more bytes than namespace %d has", ErrInvalid, n.id)
		}
		for blocks > 0 {
			part := spec.CopyRange{LBA: lba, Blocks: uint32(min(blocks, most))}
			parts = append(parts, part)
			lba, blocks = lba+uint64(part.Blocks), blocks-uint64(part.Blocks)
		}
	}
	return parts, total, nil
}
