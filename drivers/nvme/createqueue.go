package nvme

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// QueueConfig describes a queue. The zero value is a polled one of 128 commands of 4 KiB.
type QueueConfig struct {
	Depth int // commands under way at most, up to 1,024; 0 means 128
	// BufferSize is the size of each command's data buffer, a multiple of 4,096 up to 2 MiB; 0 means 4,096.
	BufferSize int
	// Interrupts has the device signal completions, for Queue.Wait. Without them the queue can only be polled.
	Interrupts bool
}

const (
	// MaxDepth is the largest depth of a queue.
	MaxDepth      = 1024
	defaultDepth  = 128
	defaultBuffer = 4096
	// shadowEntries is the least size of a submission queue with a shadow doorbell. While the device is awake its event
	// index stays where it was, and the doorbell passes it once in each round: a message that a long queue makes
	// rare. At depth 32 on 33 entries it cost more than all the rest.
	shadowEntries = 1024
)

func (c *Controller) checkQueue(cfg *QueueConfig) error {
	if cfg.Depth == 0 {
		cfg.Depth = min(defaultDepth, c.maxEntries-1)
	}
	if cfg.BufferSize == 0 {
		cfg.BufferSize = defaultBuffer
	}
	switch {
	case cfg.Depth < 1 || cfg.Depth > MaxDepth:
		return fmt.Errorf("%w: depth of %d, must be 1 to %d", ErrInvalid, cfg.Depth, MaxDepth)
	case cfg.Depth >= c.maxEntries:
		return fmt.Errorf("%w: depth of %d, this controller has at most %d", ErrInvalid, cfg.Depth, c.maxEntries-1)
	case cfg.BufferSize < pageSize || cfg.BufferSize > maxSlot || cfg.BufferSize%pageSize != 0:
		return fmt.Errorf("%w: buffers of %d bytes, must be a multiple of %d up to %d", ErrInvalid, cfg.BufferSize, pageSize, maxSlot)
	case c.maxTransfer != 0 && cfg.BufferSize > c.maxTransfer:
		return fmt.Errorf("%w: buffers of %d bytes, the controller transfers at most %d", ErrInvalid, cfg.BufferSize, c.maxTransfer)
	}
	return nil
}

// NewQueue creates an I/O queue pair. Close it, or the controller, in the end.
func (c *Controller) NewQueue(ctx context.Context, cfg QueueConfig) (*Queue, error) {
	if err := c.checkQueue(&cfg); err != nil {
		return nil, err
	}
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	if err := c.Err(); err != nil {
		return nil, err
	}
	id := slices.Index(c.queues, nil) // [0] is the admin queue
	if id < 0 {
		return nil, ErrNoQueue
	}
	q := &Queue{c: c, id: uint16(id)}
	// Twice the completion entries that are needed: they need not be given back one by one.
	sq, cq := cfg.Depth+1, min(2*(cfg.Depth+1), c.maxEntries)
	err := ErrNoQueue
	if c.bells.mode == Shadow && sq < shadowEntries {
		err = q.prepare(cfg, min(shadowEntries, c.maxEntries), cq)
	}
	if err != nil {
		q.release()
		err = q.prepare(cfg, sq, cq)
	}
	if err != nil {
		q.release()
		return nil, err
	}
	if known, err := q.create(ctx, cfg.Interrupts); err != nil {
		if known {
			q.release()
		} else {
			c.queues[id] = q // the device may use its memory until the controller is closed
		}
		return nil, fmt.Errorf("nvme: create queue %d: %w", id, err)
	}
	c.queues[id] = q
	return q, nil
}

// prepare allocates all memory of a queue.
func (q *Queue) prepare(cfg QueueConfig, sqEntriesN, cqEntriesN int) error {
	sq, err := q.alloc(uint64(sqEntriesN * spec.SubmissionEntrySize))
	if err != nil {
		return err
	}
	cq, err := q.alloc(uint64(cqEntriesN * spec.CompletionEntrySize))
	if err != nil {
		return err
	}
	q.sq, q.cq, q.phase = sqEntries(sq.Bytes), cqEntries(cq.Bytes), phaseBit
	if err := q.prepareSlots(cfg.Depth, cfg.BufferSize); err != nil {
		return err
	}
	stride := q.c.bells.stride
	q.sqBell = q.c.doorbell(spec.SQTailDoorbell(q.id, stride), q.id == 0)
	q.cqBell = q.c.doorbell(spec.CQHeadDoorbell(q.id, stride), q.id == 0)
	// To ring is a message, or a cache line that the device reads: put it off while there is room for all commands that
	// may be under way.
	q.ackAt = uint32(max(1, cqEntriesN-1-cfg.Depth))
	return nil
}

func (q *Queue) alloc(size uint64) (client.Chunk, error) {
	c, err := q.c.alloc(size)
	if err == nil {
		q.memory = append(q.memory, c)
	}
	return c, err
}

// sqAddress and cqAddress follow the order of prepare.
func (q *Queue) sqAddress() uint64 { return q.c.iova(q.memory[0]) }
func (q *Queue) cqAddress() uint64 { return q.c.iova(q.memory[1]) }

// create has the controller create the pair; the interrupt vector is the queue's number. If it fails, known says that
// nothing of the pair is left there.
func (q *Queue) create(ctx context.Context, interrupts bool) (known bool, err error) {
	const contiguous, interruptEnable = 1 << 0, 1 << 1
	flags := uint32(contiguous)
	if interrupts {
		if err := q.c.enableVector(ctx, q); err != nil {
			return true, err
		}
		flags |= uint32(q.id)<<16 | interruptEnable
	}
	cq := spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cqAddress(),
		CDW10: uint32(q.id) | uint32(len(q.cq)-1)<<16, CDW11: flags}
	if _, err := q.c.Admin(ctx, &cq, nil); err != nil {
		return refused(err), err
	}
	sq := spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sqAddress(),
		CDW10: uint32(q.id) | uint32(len(q.sq)-1)<<16, CDW11: contiguous | uint32(q.id)<<16}
	if _, err := q.c.Admin(ctx, &sq, nil); err != nil {
		undo := q.delete(ctx, spec.AdminDeleteCQ)
		return refused(err) && undo == nil, errors.Join(err, undo)
	}
	return false, nil
}

// refused says whether err is the controller's answer to a command, which was therefore not executed.
func refused(err error) bool {
	var status spec.Status
	return errors.As(err, &status)
}

func (q *Queue) delete(ctx context.Context, opcode uint8) error {
	_, err := q.c.Admin(ctx, &spec.SubmissionEntry{Opcode: opcode, CDW10: uint32(q.id)}, nil)
	return err
}

// Close deletes the queue; commands under way are aborted. It must not run while another method does. Closing again does
// nothing.
func (q *Queue) Close() error {
	c := q.c
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	if q.closed.Swap(true) {
		return nil
	}
	_ = q.fail(ErrClosed)
	if c.Err() != nil {
		q.release()
		c.queues[q.id] = nil
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	err := q.delete(ctx, spec.AdminDeleteSQ)
	if err == nil {
		err = q.delete(ctx, spec.AdminDeleteCQ)
	}
	if err != nil {
		// The device may still write to the queue's memory: keep it, and the number, until the controller is closed.
		return fmt.Errorf("nvme: delete queue %d: %w", q.id, err)
	}
	q.release()
	c.queues[q.id] = nil
	return nil
}

// release frees what the queue has in this process.
func (q *Queue) release() {
	for _, m := range q.memory {
		q.c.mem.Free(m)
	}
	q.memory = nil
	if q.irq != nil {
		_ = q.irq.Close()
	}
}
