package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// ReadBlocks reads blocks from lba into data, and their metadata into metadata, which is nil if the controller strips it.
// The error is spec.GuardCheck or another of these statuses if a check fails.
func (n *Namespace) ReadBlocks(ctx context.Context, lba uint64, data, metadata []byte, p Protection) error {
	return n.eachBlocks(ctx, spec.NVMRead, "read", lba, data, metadata, p)
}

// WriteBlocks writes blocks from lba with their metadata, which is nil if the controller makes it.
func (n *Namespace) WriteBlocks(ctx context.Context, lba uint64, data, metadata []byte, p Protection) error {
	return n.eachBlocks(ctx, spec.NVMWrite, "write", lba, data, metadata, p)
}

// CompareBlocks compares blocks from lba, and their metadata without the protection information. Both sides are checked;
// p.Action must not be set.
func (n *Namespace) CompareBlocks(ctx context.Context, lba uint64, data, metadata []byte, p Protection) error {
	return n.eachBlocks(ctx, spec.NVMCompare, "compare", lba, data, metadata, p)
}

// VerifyBlocks has the controller check blocks from lba; p.Action must not be set.
func (n *Namespace) VerifyBlocks(ctx context.Context, lba, blocks uint64, p Protection) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	if lba > n.Blocks() || blocks > n.Blocks()-lba {
		return fmt.Errorf("%w: %d blocks at %d of namespace %d", ErrInvalid, blocks, lba, n.id)
	}
	for done := uint64(0); done < blocks; {
		count := min(blocks-done, maxCommandBlocks)
		cmd := spec.SubmissionEntry{Opcode: spec.NVMVerify, CDW12: uint32(count - 1)}
		cmd.SetLBA(lba + done)
		n.metadata.ask(&cmd, &p, done)
		if err := n.do(ctx, x, &cmd, nil); err != nil {
			return n.explain("verify", err)
		}
		done += count
	}
	return nil
}

// eachBlocks runs a command on blocks, of which one command takes as many as have room in a buffer with their metadata.
func (n *Namespace) eachBlocks(ctx context.Context, opcode uint8, what string, lba uint64, data, metadata []byte, p Protection) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	size, own := n.BlockSize(), n.metadata.Size
	if n.metadata.stripped(&p) {
		own = 0
	}
	blocks := uint64(len(data)) >> n.shift
	if len(data)%size != 0 || len(metadata) != int(blocks)*own || lba > n.Blocks() || blocks > n.Blocks()-lba {
		return fmt.Errorf("%w: %d bytes of data and %d of metadata at block %d of namespace %d, which has %d of %d and %d",
			ErrInvalid, len(data), len(metadata), lba, n.id, n.Blocks(), size, own)
	}
	if size+own > int(x.q.size) {
		return fmt.Errorf("%w: blocks of %d bytes", ErrUnsupported, size+own)
	}
	for done := uint64(0); done < blocks; {
		count := min(blocks-done, uint64(int(x.q.size)/(size+own)), maxCommandBlocks)
		cmd := spec.SubmissionEntry{Opcode: opcode, NSID: n.id, CDW12: uint32(count - 1)}
		cmd.SetLBA(lba + done)
		n.metadata.ask(&cmd, &p, done)
		d, m := data[done<<n.shift:][:count<<n.shift], metadata[int(done)*own:][:int(count)*own]
		if err := n.moveBlocks(ctx, x, &cmd, d, m); err != nil {
			return n.explain(what, err)
		}
		done += count
	}
	return nil
}

// moveBlocks runs one command. Separate metadata is behind the data in the buffer.
func (n *Namespace) moveBlocks(ctx context.Context, x *executor, cmd *spec.SubmissionEntry, data, metadata []byte) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	tag, err := x.take(ctx)
	if err != nil {
		return err
	}
	length, step, apart := len(data), n.BlockSize(), len(data)
	own := 0
	if len(metadata) > 0 {
		own = n.metadata.Size
	}
	if n.metadata.Extended && own > 0 {
		step, apart = step+own, n.BlockSize()
		length += len(metadata)
	} else {
		cmd.MPTR = x.q.IOVA(tag) + uint64(len(data))
	}
	cmd.PRP1, cmd.PRP2 = x.q.PRPs(tag, length)
	buffer := x.q.Buffer(tag)
	move := func(out bool) {
		for i := 0; i*n.BlockSize() < len(data); i++ {
			d, m := data[i*n.BlockSize():][:n.BlockSize()], metadata[i*own:][:own]
			inD, inM := buffer[i*step:], buffer[apart+i*own:]
			if n.metadata.Extended {
				inM = buffer[i*step+apart:]
			}
			if out {
				copy(d, inD)
				copy(m, inM)
			} else {
				copy(inD, d)
				copy(inM, m)
			}
		}
	}
	move(false)
	if err := x.submit(tag, cmd); err != nil {
		return err
	}
	c, err := x.wait(ctx, tag)
	if err != nil {
		return err
	}
	if err = c.Err(); err == nil && cmd.Opcode == spec.NVMRead {
		move(true)
	}
	x.give(tag)
	return err
}
