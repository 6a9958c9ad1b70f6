package nvme

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// maxPieces is how many commands one ReadAt or WriteAt has under way at a time.
const maxPieces = 8

// newIOQueue makes the queue for the namespaces.
func (c *Controller) newIOQueue(ctx context.Context) (*Queue, error) {
	cfg := QueueConfig{Depth: min(ioDepth, c.maxEntries-1), BufferSize: ioBuffer}
	if c.maxTransfer != 0 {
		cfg.BufferSize = min(cfg.BufferSize, c.maxTransfer)
	}
	if info, err := c.dev.IRQInfo(ctx, client.IRQMSIX); err != nil {
		return nil, err
	} else if c.msix != 0 && info.Count > 1 {
		cfg.Interrupts = true
	}
	for {
		q, err := c.NewQueue(ctx, cfg)
		switch {
		case !errors.Is(err, client.ErrNoSpace):
			return q, err
		case cfg.BufferSize > pageSize:
			cfg.BufferSize /= 2
		case cfg.Depth > leastIODepth:
			cfg.Depth /= 2
		default:
			return nil, err
		}
	}
}

// ReadAt reads len(p) bytes at off, any number at any offset (io.ReaderAt). Data is copied through the driver's buffers.
func (n *Namespace) ReadAt(p []byte, off int64) (int, error) {
	x, err := n.executor(context.Background())
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%w: offset %d", ErrInvalid, off)
	}
	if off >= n.Size() {
		return 0, io.EOF
	}
	if err := n.plain(); err != nil {
		return 0, err
	}
	want := int(min(int64(len(p)), n.Size()-off))
	done, err := n.move(x, spec.NVMRead, p[:want], off)
	if err == nil && want < len(p) {
		err = io.EOF
	}
	return done, err
}

// WriteAt writes p at off (io.WriterAt). Blocks that are covered in part only are read first. The data is durable after
// Flush.
func (n *Namespace) WriteAt(p []byte, off int64) (int, error) {
	x, err := n.executor(context.Background())
	if err != nil {
		return 0, err
	}
	if off < 0 || off > n.Size() || int64(len(p)) > n.Size()-off {
		return 0, fmt.Errorf("%w: write of %d bytes at %d of namespace %d, which has %d", ErrInvalid, len(p), off, n.id, n.Size())
	}
	if err := n.plain(); err != nil {
		return 0, err
	}
	mask := int64(n.BlockSize() - 1)
	if off&mask == 0 && int64(len(p))&mask == 0 {
		n.partial.RLock()
		defer n.partial.RUnlock()
		return n.move(x, spec.NVMWrite, p, off)
	}
	n.partial.Lock()
	defer n.partial.Unlock()
	return n.writePartial(x, p, off)
}

// writePartial writes what does not consist of whole blocks: the first block, whole blocks, the last block.
func (n *Namespace) writePartial(x *executor, p []byte, off int64) (done int, err error) {
	size := n.BlockSize()
	block := make([]byte, size)
	for len(p) > 0 {
		in := int(off & int64(size-1))
		whole := len(p) &^ (size - 1)
		var moved int
		if in == 0 && whole > 0 {
			moved, err = n.move(x, spec.NVMWrite, p[:whole], off)
		} else if _, err = n.move(x, spec.NVMRead, block, off-int64(in)); err == nil {
			moved = copy(block[in:], p)
			if _, err = n.move(x, spec.NVMWrite, block, off-int64(in)); err != nil {
				moved = 0
			}
		}
		done += moved
		if err != nil {
			return done, err
		}
		p, off = p[moved:], off+int64(moved)
	}
	return done, nil
}

// piece is a command of a transfer.
type piece struct {
	tag  uint16
	data []byte // the caller's
	in   int    // where it begins in the tag's buffer
}

// move reads or writes p, which is in the namespace; a write consists of whole blocks. It returns how many bytes from the
// beginning were transferred.
func (n *Namespace) move(x *executor, opcode uint8, p []byte, off int64) (done int, err error) {
	if err := x.enter(); err != nil {
		return 0, n.explain("access", err)
	}
	defer x.leave()
	for len(p) > 0 && err == nil {
		var pieces [maxPieces]piece
		count := 0
		for count < maxPieces && len(p) > 0 {
			tag, ok := x.tryTake()
			if !ok {
				if count > 0 {
					break
				}
				if tag, err = x.take(context.Background()); err != nil {
					return done, err
				}
			}
			pc, length := n.piece(x, tag, p, off)
			if err = n.submit(x, opcode, &pc, off); err != nil {
				break
			}
			pieces[count] = pc
			count++
			p, off = p[length:], off+int64(length)
		}
		good := true
		for i := range pieces[:count] {
			if e := n.finish(x, opcode, &pieces[i]); e != nil {
				good = false
				if err == nil {
					err = e
				}
			}
			if good {
				done += len(pieces[i].data)
			}
		}
	}
	if err != nil {
		what := "read"
		if opcode == spec.NVMWrite {
			what = "write"
		}
		return done, n.explain(what, err)
	}
	return done, nil
}

// piece cuts off the beginning of a transfer, as much as fits into a buffer.
func (n *Namespace) piece(x *executor, tag uint16, p []byte, off int64) (pc piece, length int) {
	in := int(off & int64(n.BlockSize()-1))
	length = min(len(p), int(x.q.size)-in)
	return piece{tag: tag, data: p[:length], in: in}, length
}

func (n *Namespace) submit(x *executor, opcode uint8, pc *piece, off int64) error {
	if opcode == spec.NVMWrite {
		copy(x.q.Buffer(pc.tag), pc.data)
	}
	bytes := pc.in + len(pc.data)
	blocks := uint64(bytes+n.BlockSize()-1) >> n.shift
	cmd := spec.SubmissionEntry{Opcode: opcode, NSID: n.id, CDW12: uint32(blocks - 1)}
	cmd.SetLBA(uint64(off) >> n.shift)
	if n.metadata.Size > 0 {
		p := n.metadata.automatic(cmd.LBA())
		n.metadata.ask(&cmd, &p, 0)
	}
	cmd.PRP1, cmd.PRP2 = x.q.PRPs(pc.tag, int(blocks)<<n.shift)
	return x.submit(pc.tag, &cmd)
}

func (n *Namespace) finish(x *executor, opcode uint8, pc *piece) error {
	c, err := x.wait(context.Background(), pc.tag)
	if err != nil {
		return err
	}
	if err = c.Err(); err == nil && opcode == spec.NVMRead {
		copy(pc.data, x.q.Buffer(pc.tag)[pc.in:])
	}
	x.give(pc.tag)
	return err
}
