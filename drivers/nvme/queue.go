package nvme

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

const (
	phaseBit = 1 << 48 // of the upper half of a completion
	// lossRounds is how many times in a row a queue is polled in vain before it is asked whether the session still lasts.
	lossRounds = 64
)

// Queue is an I/O queue pair with a data buffer for each command that may be under way. It belongs to one goroutine.
//
// A command is known by its tag, 0 to Depth-1, chosen by the caller: it names the buffer, and comes back in the
// completion. Submitted commands are seen by the device after Ring.
type Queue struct {
	c  *Controller
	id uint16

	sq     []sqEntry
	tail   uint32
	sqBell doorbell

	cq      []cqEntry
	head    uint32
	phase   uint64 // of entries that are new: 0 or phaseBit
	unacked uint32 // entries taken since the head doorbell was rung
	ackAt   uint32 // ring when there are so many
	cqBell  doorbell

	slots  []slot
	size   uint32 // of a slot's buffer, bytes
	vain   uint32 // empty polls in a row
	err    error  // sticky
	irq    *client.Eventfd
	memory []client.Chunk
	closed atomic.Bool
}

// slot is what belongs to a tag.
type slot struct {
	busy bool
	iova uint64
	list uint64 // address of a PRP list for the buffer's second page and those behind it
	data []byte
}

// Completion is what became of a command.
type Completion struct {
	Tag    uint16
	Status spec.Status // 0 is success; an error otherwise
	Result uint32      // dword 0
}

// Err is nil on success, else the status.
func (c *Completion) Err() error {
	if c.Status.Code() == spec.Success {
		return nil
	}
	return c.Status
}

// Depth is how many commands may be under way: tags are 0 to Depth-1.
func (q *Queue) Depth() int { return len(q.slots) }

// Buffer is the data buffer of a tag. While the tag is in use it is the device's.
func (q *Queue) Buffer(tag uint16) []byte { return q.slots[tag].data }

// IOVA is the address of a tag's buffer for the device.
func (q *Queue) IOVA(tag uint16) uint64 { return q.slots[tag].iova }

// Interrupts says whether the queue was made with interrupts, for Wait.
func (q *Queue) Interrupts() bool { return q.irq != nil }

// Read submits a read of blocks logical blocks into the buffer of tag. Errors as for Submit, or ErrInvalid if the buffer
// is too small, or ErrUnsupported if the blocks have metadata.
func (q *Queue) Read(tag uint16, n *Namespace, lba uint64, blocks uint32) error {
	return q.transfer(spec.NVMRead, tag, n, lba, blocks)
}

// Write submits a write of blocks logical blocks from the buffer of tag. See Read.
func (q *Queue) Write(tag uint16, n *Namespace, lba uint64, blocks uint32) error {
	return q.transfer(spec.NVMWrite, tag, n, lba, blocks)
}

func (q *Queue) transfer(opcode uint8, tag uint16, n *Namespace, lba uint64, blocks uint32) error {
	e, s, err := q.claim(tag)
	if err != nil {
		return err
	}
	length := uint64(blocks) << n.shift
	if length-1 >= uint64(q.size) {
		return errTransferSize
	}
	if n.metadata.Size > 0 {
		return errMetadata
	}
	s.busy = true
	// Plain stores: the doorbell publishes them.
	e[0] = uint64(opcode) | uint64(tag)<<16 | uint64(n.id)<<32
	e[1] = 0
	e[2] = 0
	e[3] = s.iova
	e[4] = s.prp2(length)
	e[5] = lba
	e[6] = uint64(blocks - 1)
	e[7] = 0
	q.advance()
	return nil
}

var errMetadata = fmt.Errorf("%w: blocks with metadata, which Submit takes", ErrUnsupported)

var errTransferSize = fmt.Errorf("%w: transfer does not fit into the buffer", ErrInvalid)

// prp2 describes what lies behind the first page of the buffer.
func (s *slot) prp2(length uint64) uint64 {
	switch {
	case length <= pageSize:
		return 0
	case length <= 2*pageSize:
		return s.iova + pageSize
	}
	return s.list
}

// Submit submits any command. CID is set to the tag; the data pointers are taken as they are: PRPs gives those of the
// buffer. Errors: ErrBusy if the tag is in use, ErrInvalid if there is no such tag, or why the queue is out of use.
func (q *Queue) Submit(tag uint16, cmd *spec.SubmissionEntry) error {
	e, s, err := q.claim(tag)
	if err != nil {
		return err
	}
	s.busy = true
	e[0] = uint64(cmd.Opcode) | uint64(cmd.Flags)<<8 | uint64(tag)<<16 | uint64(cmd.NSID)<<32
	e[1] = uint64(cmd.CDW2) | uint64(cmd.CDW3)<<32
	e[2] = cmd.MPTR
	e[3] = cmd.PRP1
	e[4] = cmd.PRP2
	e[5] = uint64(cmd.CDW10) | uint64(cmd.CDW11)<<32
	e[6] = uint64(cmd.CDW12) | uint64(cmd.CDW13)<<32
	e[7] = uint64(cmd.CDW14) | uint64(cmd.CDW15)<<32
	q.advance()
	return nil
}

// PRPs are the data pointers for the first length bytes of the buffer of tag.
func (q *Queue) PRPs(tag uint16, length int) (prp1, prp2 uint64) {
	s := &q.slots[tag]
	return s.iova, s.prp2(uint64(length))
}

// claim finds the place of the next command. There is always one: a queue has one entry more than tags, and an
// entry is free again before its command is completed.
func (q *Queue) claim(tag uint16) (*sqEntry, *slot, error) {
	if q.err != nil {
		return nil, nil, q.err
	}
	if int(tag) >= len(q.slots) {
		return nil, nil, errTag
	}
	s := &q.slots[tag]
	if s.busy {
		return nil, nil, ErrBusy
	}
	return &q.sq[q.tail], s, nil
}

var errTag = fmt.Errorf("%w: tag is not below the depth", ErrInvalid)

func (q *Queue) advance() {
	q.tail++
	if q.tail == uint32(len(q.sq)) {
		q.tail = 0
	}
}

// Ring tells the device of what was submitted since the last time.
func (q *Queue) Ring() error {
	if q.err != nil {
		return q.err
	}
	if q.tail == q.sqBell.value {
		return nil
	}
	if err := q.c.ring(&q.sqBell, q.tail); err != nil {
		return q.fail(err)
	}
	return nil
}

// Poll takes completions, as many as there are and done has room for, without waiting. The error says that the queue
// is out of use: the session or the controller is gone, or the device misbehaves. Commands under way are lost then.
func (q *Queue) Poll(done []Completion) (n int, err error) {
	if q.err != nil {
		return 0, q.err
	}
	head, phase := q.head, q.phase
	for n < len(done) {
		e := &q.cq[head]
		hi := e.hi.Load()
		if hi&phaseBit != phase {
			break
		}
		tag := uint16(hi >> 32)
		if int(tag) >= len(q.slots) || !q.slots[tag].busy || uint16(hi>>16) != q.id {
			return n, q.fail(fmt.Errorf("%w: completion of command %d of queue %d, which is not under way", ErrDevice, tag, uint16(hi>>16)))
		}
		q.slots[tag].busy = false
		done[n] = Completion{Tag: tag, Status: spec.Status(hi >> 49), Result: uint32(e.lo)}
		n++
		head++
		if head == uint32(len(q.cq)) {
			head, phase = 0, phase^phaseBit
		}
	}
	if n == 0 {
		return 0, q.pollVain()
	}
	q.head, q.phase, q.vain = head, phase, 0
	q.unacked += uint32(n)
	if q.unacked >= q.ackAt {
		q.unacked = 0
		if err := q.c.ring(&q.cqBell, head); err != nil {
			return n, q.fail(err)
		}
	}
	return n, nil
}

// pollVain looks from time to time whether completions can still come.
func (q *Queue) pollVain() error {
	q.vain++
	if q.vain%lossRounds == 0 && q.err == nil {
		if err := q.c.Err(); err != nil {
			return q.fail(err)
		}
	}
	return q.err
}

func (q *Queue) fail(err error) error {
	if q.err == nil {
		q.err = err
	}
	return q.err
}

// Wait waits for an interrupt that came since the last Wait: poll before and afterwards. Only for a queue with
// interrupts.
func (q *Queue) Wait(ctx context.Context) error {
	if q.irq == nil {
		return errors.Join(ErrUnsupported, errors.New("nvme: the queue has no interrupt"))
	}
	_, err := q.irq.Wait(ctx)
	if lost := q.c.Err(); lost != nil {
		return q.fail(lost)
	}
	return err
}
