package nvme

import (
	"context"
	"errors"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// CompareAndWrite writes next at off if what is there is old, as one operation that nothing comes between. Both have the same
// length, of whole blocks, and fit into one command. The error is spec.CompareFailure if something else was there.
func (n *Namespace) CompareAndWrite(ctx context.Context, old, next []byte, off int64) error {
	x, err := n.executor(ctx)
	if err != nil {
		return err
	}
	if n.c.identity.FUSES&spec.FUSESCompareAndWrite == 0 {
		return fmt.Errorf("%w: compare and write", ErrUnsupported)
	}
	lba, blocks, err := n.blocks(off, int64(len(old)))
	if err == nil && (len(old) != len(next) || blocks == 0 || len(old) > int(x.q.size)) {
		err = fmt.Errorf("%w: compare %d bytes and write %d, at most %d", ErrInvalid, len(old), len(next), x.q.size)
	}
	if err != nil {
		return err
	}
	first := spec.SubmissionEntry{Opcode: spec.NVMCompare, Flags: spec.FuseFirst, NSID: n.id, CDW12: uint32(blocks - 1)}
	first.SetLBA(lba)
	second := first
	second.Opcode, second.Flags = spec.NVMWrite, spec.FuseSecond
	return n.explain("compare and write", x.doPair(ctx, [2]*spec.SubmissionEntry{&first, &second}, [2][]byte{old, next}))
}

// doPair executes two fused commands with their data. The error is of the one that is to blame.
func (x *executor) doPair(ctx context.Context, cmds [2]*spec.SubmissionEntry, data [2][]byte) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	x.pairs.Lock() // two of them with one tag each would wait for ever
	var tags [2]uint16
	for i := range tags {
		tag, err := x.take(ctx)
		if err != nil {
			if i > 0 {
				x.give(tags[0])
			}
			x.pairs.Unlock()
			return err
		}
		tags[i] = tag
		copy(x.q.Buffer(tag), data[i])
		cmds[i].PRP1, cmds[i].PRP2 = x.q.PRPs(tag, len(data[i]))
	}
	x.pairs.Unlock()
	if err := x.submitPair(tags, cmds); err != nil {
		return err
	}
	var failed error
	for _, tag := range tags {
		c, err := x.wait(ctx, tag)
		if err == nil {
			err = c.Err()
			x.give(tag)
		}
		if err != nil && (failed == nil || errors.Is(failed, spec.AbortFailedFused)) {
			failed = err
		}
	}
	return failed
}

// submitPair submits commands in adjacent entries and rings once. If it fails the tags are free.
func (x *executor) submitPair(tags [2]uint16, cmds [2]*spec.SubmissionEntry) error {
	x.mu.Lock()
	var err error
	for i, tag := range tags {
		s := &x.slots[tag]
		s.finished, s.abandoned = false, false
		if err == nil {
			err = x.q.Submit(tag, cmds[i])
		}
	}
	if err == nil {
		err = x.q.Ring()
	}
	x.mu.Unlock()
	if err != nil {
		x.give(tags[0])
		x.give(tags[1])
	}
	return err
}
