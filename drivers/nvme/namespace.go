package nvme

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"vfiouser/devices/nvme/spec"
)

// Namespace is a namespace of a controller: a disk. All methods may be called from any goroutine; of several that touch the
// same blocks at the same time the order is open, as on any disk.
type Namespace struct {
	c        *Controller
	id       uint32
	shift    uint8 // log2 of the block size
	identity spec.IdentifyNamespace
	metadata Metadata

	// Writes of whole blocks hold it shared, those that have to read a block first hold it alone.
	partial sync.RWMutex
}

var (
	_ io.ReaderAt = (*Namespace)(nil)
	_ io.WriterAt = (*Namespace)(nil)
)

// Rescan looks which namespaces are active now, and how they are formatted. A Namespace that was
// returned before goes on with what it knew when the controller or a scan opened it.
func (c *Controller) Rescan(ctx context.Context) error {
	var list []*Namespace
	for last := uint32(0); ; {
		data, err := c.IdentifyData(ctx, spec.CNSActiveNamespaces, last)
		if err != nil {
			return err
		}
		ids := spec.NamespaceList(data)
		for _, id := range ids {
			if id <= last {
				return fmt.Errorf("%w: namespace list is not ascending", ErrDevice)
			}
			last = id
			n, err := c.newNamespace(ctx, id)
			if err != nil {
				return err
			}
			list = append(list, n)
		}
		if len(ids) < spec.MaxListNamespaces {
			c.namespaces.Store(&list)
			return nil
		}
	}
}

func (c *Controller) newNamespace(ctx context.Context, id uint32) (*Namespace, error) {
	data, err := c.IdentifyData(ctx, spec.CNSNamespace, id)
	if err != nil {
		return nil, err
	}
	n := &Namespace{c: c, id: id}
	n.identity.Get(data)
	size := n.identity.BlockSize()
	if size == 0 || n.identity.Size > 1<<63>>bits.TrailingZeros(uint(size))-1 {
		return nil, fmt.Errorf("%w: namespace %d of %d blocks in format %#x", ErrUnsupported, id, n.identity.Size, n.identity.FLBAS)
	}
	n.shift = uint8(bits.TrailingZeros(uint(size)))
	if err := n.findMetadata(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// Namespaces are the namespaces that were active at the last scan, in ascending order.
func (c *Controller) Namespaces() []*Namespace { return slices.Clone(*c.namespaces.Load()) }

// Namespace returns a namespace, or nil, whose methods fail with ErrNoNamespace, if there is none with this identifier.
func (c *Controller) Namespace(id uint32) *Namespace {
	list := *c.namespaces.Load()
	i, ok := slices.BinarySearchFunc(list, id, func(n *Namespace, id uint32) int {
		return int(int64(n.id) - int64(id))
	})
	if !ok {
		return nil
	}
	return list[i]
}

// ID is the namespace identifier.
func (n *Namespace) ID() uint32 { return n.id }

// Identify is what the controller said of the namespace when it was opened.
func (n *Namespace) Identify() spec.IdentifyNamespace { return n.identity }

// BlockSize is the logical block size in bytes.
func (n *Namespace) BlockSize() int { return 1 << n.shift }

// Blocks is the size in logical blocks.
func (n *Namespace) Blocks() uint64 { return n.identity.Size }

// Size is the size in bytes.
func (n *Namespace) Size() int64 { return int64(n.identity.Size) << n.shift }

const (
	ioDepth      = 32
	ioBuffer     = 128 << 10
	leastIODepth = 2
)

// executor returns the queue for the namespaces, which is made on first use, with as large buffers as the memory has room
// for.
func (n *Namespace) executor(ctx context.Context) (*executor, error) {
	if n == nil {
		return nil, ErrNoNamespace
	}
	c := n.c
	c.ioMu.Lock()
	defer c.ioMu.Unlock()
	if c.io == nil {
		q, err := c.newIOQueue(ctx)
		if err != nil {
			return nil, err
		}
		c.io = newExecutor(q, c.timeout)
	}
	if n.BlockSize() > int(c.io.q.size) {
		return nil, fmt.Errorf("%w: blocks of %d bytes", ErrUnsupported, n.BlockSize())
	}
	return c.io, nil
}

// Flush makes everything written durable.
func (n *Namespace) Flush(ctx context.Context) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	return n.explain("flush", n.do(ctx, x, &spec.SubmissionEntry{Opcode: spec.NVMFlush}, nil))
}

// WriteZeroes makes length bytes at off read as zeroes. Both must be multiples of the block size.
func (n *Namespace) WriteZeroes(ctx context.Context, off, length int64) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	if n.c.identity.ONCS&spec.ONCSWriteZeroes == 0 {
		return fmt.Errorf("%w: Write Zeroes", ErrUnsupported)
	}
	lba, blocks, err := n.blocks(off, length)
	if err != nil {
		return err
	}
	for blocks > 0 {
		count := min(blocks, 1<<16)
		cmd := spec.SubmissionEntry{Opcode: spec.NVMWriteZeroes, CDW12: uint32(count - 1)}
		cmd.SetLBA(lba)
		n.metadata.ask(&cmd, &Protection{Action: true, RefTag: lba}, 0)
		if err := n.do(ctx, x, &cmd, nil); err != nil {
			return n.explain("write zeroes", err)
		}
		lba, blocks = lba+count, blocks-count
	}
	return nil
}

// Range is a part of a namespace in bytes.
type Range struct{ Offset, Length int64 }

// Deallocate tells the controller that the contents of ranges are not needed any more (TRIM). They must consist of whole
// blocks.
func (n *Namespace) Deallocate(ctx context.Context, ranges ...Range) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	if n.c.identity.ONCS&spec.ONCSDatasetManagement == 0 {
		return fmt.Errorf("%w: Dataset Management", ErrUnsupported)
	}
	var list []byte
	for _, r := range ranges {
		lba, blocks, err := n.blocks(r.Offset, r.Length)
		if err != nil {
			return err
		}
		for blocks > 0 {
			d := spec.DSMRange{LBA: lba, Blocks: uint32(min(blocks, 1<<32-1))}
			list = append(list, make([]byte, spec.DSMRangeSize)...)
			d.Put(list[len(list)-spec.DSMRangeSize:])
			lba, blocks = lba+uint64(d.Blocks), blocks-uint64(d.Blocks)
		}
	}
	for len(list) > 0 {
		part := list[:min(len(list), spec.DSMMaxRanges*spec.DSMRangeSize)]
		cmd := spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement,
			CDW10: uint32(len(part)/spec.DSMRangeSize - 1), CDW11: spec.DSMDeallocate}
		if err := n.do(ctx, x, &cmd, part); err != nil {
			return n.explain("deallocate", err)
		}
		list = list[len(part):]
	}
	return nil
}

func (n *Namespace) do(ctx context.Context, x *executor, cmd *spec.SubmissionEntry, in []byte) error {
	cmd.NSID = n.id
	_, err := x.do(ctx, cmd, in, nil)
	return err
}

// blocks turns bytes into blocks that are there.
func (n *Namespace) blocks(off, length int64) (lba, count uint64, err error) {
	mask := int64(n.BlockSize() - 1)
	if off < 0 || length < 0 || off&mask != 0 || length&mask != 0 || off > n.Size() || length > n.Size()-off {
		return 0, 0, fmt.Errorf("%w: %d bytes at %d of namespace %d: not blocks of %d bytes, or beyond its %d bytes",
			ErrInvalid, length, off, n.id, n.BlockSize(), n.Size())
	}
	return uint64(off) >> n.shift, uint64(length) >> n.shift, nil
}

func (n *Namespace) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("nvme: namespace %d: %s: %w", n.id, what, err)
}
