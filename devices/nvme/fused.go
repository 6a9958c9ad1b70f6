package nvme

import (
	"runtime/debug"

	"vfiouser/devices/nvme/spec"
)

// Fused operations (Base 2.0, 3.4.2): two commands in adjacent entries of a queue, which the
// host announces with one doorbell write, are carried out as one. There is Compare and
// Write.

// isFused is no status of NVMe: the command says that it is half of a pair.
const isFused spec.Status = 0xfffc

// flagsStatus is the status of a command whose FUSE or PSDT is not 0 to begin with.
func flagsStatus(e *spec.SubmissionEntry) spec.Status {
	if f := e.Fuse(); f == spec.FuseFirst || f == spec.FuseSecond {
		return isFused
	}
	return spec.InvalidField | spec.StatusDNR
}

// fuse decides about a command that is half of a pair: cmd gets its plan and its status, and
// the other half if there is one. next reads the entry behind it, nil if it cannot be
// reached. It returns how many entries of the queue that takes, 0 if it cannot be decided.
func (q *subQueue) fuse(cmd *command, tail uint32, next func(at uint32) []byte) (taken uint32) {
	fuse, opcode := cmd.entry.Fuse(), uint8(spec.NVMCompare)
	if fuse == spec.FuseSecond {
		opcode = spec.NVMWrite
	}
	cmd.plan, cmd.result = planSlow, spec.AbortMissingFused
	if cmd.entry.Opcode != opcode {
		cmd.result = badField
	}
	at := q.next(q.head)
	if fuse == spec.FuseSecond || at == tail {
		return 1
	}
	from := next(at)
	if from == nil {
		return 0
	}
	second := q.take()
	if second.entry.Get(from); second.entry.Fuse() != spec.FuseSecond {
		q.free = append(q.free, second)
		return 1
	}
	second.first = cmd
	cmd.result, cmd.second = spec.Success, second
	return 2
}

// mostCompareAndWrite is the number of blocks of Compare and Write that every format allows,
// less one: as many as a transfer.
func (c *Controller) mostCompareAndWrite() uint16 {
	most := c.cfg.MaxTransfer
	for i := range blockFormats {
		f := &blockFormats[i]
		most = min(most, c.cfg.MaxTransfer/(1<<f.shift+int(f.metadata)))
	}
	return uint16(max(most, 1) - 1)
}

// script is what a courier reads from the host for a pair. It does so before it keeps others
// away, as a host may take its time, and is given the same once more afterwards.
type script struct {
	replaying bool
	pieces    [][]byte
}

// fetched is no status of NVMe: the script has all that a command reads from the host.
const fetched spec.Status = 0xfffb

// readHost reads the host's memory.
func (c *courier) readHost(iova uint64, p []byte) error {
	s := c.script
	switch {
	case s == nil:
		return c.h.readDMA(iova, p)
	case s.replaying:
		copy(p, s.pieces[0])
		s.pieces = s.pieces[1:]
		return nil
	}
	err := c.h.readDMA(iova, p)
	s.pieces = append(s.pieces, append([]byte(nil), p...))
	return err
}

// pair carries out Compare and Write. If one of them cannot succeed the other one is not
// carried out; if the data differs the second one is not.
func (c *courier) pair(first, second *command) (st1, st2 spec.Status) {
	defer func() {
		if v := recover(); v != nil {
			c.h.fault(v, debug.Stack())
			st1, st2 = spec.InternalError, spec.InternalError
		}
		c.script = nil
	}()
	if st1, st2 = checkPair(&first.entry, &second.entry); !st1.OK() || !st2.OK() {
		return st1, st2
	}
	first.entry.Flags &^= spec.FuseFirst
	second.entry.Flags &^= spec.FuseSecond
	for {
		if c.abandoned() {
			return spec.AbortSQDeletion, spec.AbortSQDeletion
		}
		s := &script{}
		c.script = s
		for _, cmd := range []*command{first, second} {
			_, st := c.h.c.prepare(cmd)
			if st.OK() {
				st = c.run(cmd)
			}
			if st != fetched {
				return failedHalf(st, cmd == first)
			}
		}
		s.replaying = true
		c.h.c.subsystem.exclude(first.ns.allocation, func(*namespace) {
			if st1 = c.run(first); st1.OK() {
				st2 = c.run(second)
			}
		})
		switch {
		case st1 == changed || st2 == changed:
			continue
		case !st1.OK():
			return failedHalf(st1, true)
		case st2.OK():
			c.h.c.smart.add(&ioStats{writes: 1, bytesWritten: uint64(second.request.Length)})
		}
		return st1, st2
	}
}

// checkPair says whether commands can be a pair.
func checkPair(first, second *spec.SubmissionEntry) (st1, st2 spec.Status) {
	switch {
	case first.Opcode != spec.NVMCompare:
		return failedHalf(badField, true)
	case second.Opcode != spec.NVMWrite:
		return failedHalf(badField, false)
	case first.NSID != second.NSID || first.LBA() != second.LBA() || first.Blocks() != second.Blocks():
		return badField, badField
	}
	return spec.Success, spec.Success
}

// failedHalf are the statuses of a pair of which one command has failed.
func failedHalf(st spec.Status, first bool) (st1, st2 spec.Status) {
	if first {
		return st, spec.AbortFailedFused
	}
	return spec.AbortFailedFused, st
}
