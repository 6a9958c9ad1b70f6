package nvme

import (
	"errors"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// plan is how a checked I/O command is carried out.
type plan uint8

const (
	planNone    plan = iota // the command is refused
	planData                // one request with data
	planSimple              // one request without data
	planSlow                // several requests, or data that is not the blocks: see courier
	planRewrite             // as planData, but blocks become readable: see uncorrectable
)

// Flags that I/O commands have if they are fused, and that admin commands never have, as
// these have PRPs on PCIe (Base 1.4, 4.2).
const (
	fused           = 0x03
	notOfferedAdmin = 0xc3
)

// prepare checks an I/O command and makes its request. The same command gets the same
// status whatever kind of memory it is in.
func (c *Controller) prepare(cmd *command) (plan, spec.Status) {
	e, r := &cmd.entry, &cmd.request
	r.Length, r.Batch = 0, false
	switch e.Opcode {
	case spec.NVMRead:
		r.Op = block.Read
		r.FUA = false
	case spec.NVMWrite:
		r.Op = block.Write
		r.FUA = e.CDW12&spec.RWForceUnit != 0 || c.writeThrough.Load()
	case spec.NVMWriteZeroes:
		r.Op = block.WriteZeroes
		r.FUA = e.CDW12&spec.RWForceUnit != 0 || c.writeThrough.Load()
		r.Deallocate = e.CDW12&spec.RWDeallocate != 0
	default:
		return c.prepareOther(cmd)
	}
	if e.Flags&fused != 0 || e.PSDT() > spec.PSDTSGLSegment {
		return 0, flagsStatus(e)
	}
	ns := c.namespace(e.NSID)
	if ns == nil {
		return 0, c.absent(e.NSID)
	}
	lba, n := e.LBA(), uint64(e.Blocks())
	if limit := ns.readable.Load(); n > limit || lba > limit-n {
		return c.prepareMarked(cmd, ns)
	}
	if ns.info.ReadOnly && r.Op != block.Read {
		return 0, spec.NamespaceWriteProtected | spec.StatusDNR
	}
	r.Offset, r.Length = int64(lba<<ns.shift), int64(n<<ns.shift)
	cmd.ns = ns
	if r.Op == block.WriteZeroes {
		return planSimple, spec.Success
	}
	if r.Length > int64(c.cfg.MaxTransfer) {
		r.Length = 0
		return 0, spec.InvalidField | spec.StatusDNR
	}
	return planData, spec.Success
}

// execute carries out command i of the batch, cmd. done means that st is its result;
// otherwise it is in flight and comes back through the done list.
func (g *group) execute(i int, cmd *command) (st spec.Status, done bool) {
	if cmd.result != spec.Success {
		return cmd.result, true
	}
	r := &cmd.request
	p := cmd.plan
	switch p {
	case planData:
		prot := dma.ProtWrite
		if r.Op == block.Write {
			prot = dma.ProtRead
		}
		if st = g.gather(cmd, prot); st == byMessage {
			p = planSlow
		} else if st != spec.Success {
			return st, true
		}
		g.stats.count(r.Op, r.Length)
	case planSimple:
		r.Buffers = r.Buffers[:0]
	case planRewrite:
		g.stats.count(r.Op, r.Length)
		p = planSlow
	}
	if p == planSlow {
		g.leave(i)
		g.h.couriers.run(cmd)
		return 0, false
	}
	if p == planData && !cmd.ns.info.Async {
		var err error
		if g.crowd.Load() {
			err = g.submitWhole(cmd.ns, r)
		} else {
			_, err = cmd.ns.backend.Submit(r) // ends at once, as it has buffers
		}
		if err != nil {
			return g.h.outcome(r.Op, err), true
		}
		return spec.Success, true
	}
	cmd.ns.gate.begin()
	cmd.counted = true
	if cmd.ns.poller != nil {
		r.Batch = true
		g.pollers.take(cmd.ns.poller)
	}
	ended, err := cmd.ns.backend.Submit(r)
	if !ended {
		g.leave(i)
		return 0, false
	}
	cmd.giveUp()
	if err != nil {
		return g.h.outcome(r.Op, err), true
	}
	return spec.Success, true
}

// byMessage is no status of NVMe: the memory is reached by message only.
const byMessage spec.Status = 0xffff

// gather translates the data of a command. What an asynchronous backend gets is pinned.
func (g *group) gather(cmd *command, prot dma.Prot) spec.Status {
	r := &cmd.request
	n := uint64(r.Length)
	prp1 := cmd.entry.PRP1
	if n <= pageSize-prp1%pageSize && prp1&3 == 0 && cmd.entry.PSDT() == spec.PSDTPRP && !cmd.ns.info.Async {
		b, err := g.reader.Bytes(prp1, n, prot)
		if err != nil {
			return memoryStatus(err)
		}
		r.Buffers = append(r.Buffers[:0], b)
		return spec.Success
	}
	r.Buffers = r.Buffers[:0]
	if st := g.data.walk(&cmd.entry, n, g); st != spec.Success {
		return st
	}
	if g.data.buckets {
		return byMessage // rare, and couriers have memory of their own
	}
	for _, run := range g.data.runs {
		for run.n > 0 {
			b, err := g.reader.Span(run.iova, run.n, prot)
			if err == nil && cmd.ns.info.Async {
				var pin dma.Pin
				b, pin, err = g.reader.Pin(run.iova, uint64(len(b)), prot)
				cmd.pins = append(cmd.pins, pin)
			}
			if err != nil {
				cmd.unpin()
				return memoryStatus(err)
			}
			r.Buffers = append(r.Buffers, b)
			run.iova += uint64(len(b))
			run.n -= uint64(len(b))
		}
	}
	return spec.Success
}

// readList reads a piece of a PRP list or an SGL segment for the walker.
func (g *group) readList(iova uint64, p []byte) spec.Status {
	for len(p) > 0 {
		b, err := g.reader.Span(iova, uint64(len(p)), dma.ProtRead)
		if err != nil {
			return memoryStatus(err)
		}
		dma.Copy(p, b)
		iova, p = iova+uint64(len(b)), p[len(b):]
	}
	return spec.Success
}

// memoryStatus is the status of a command whose data or list cannot be reached.
func memoryStatus(err error) spec.Status {
	if err == dma.ErrMessage {
		return byMessage
	}
	return spec.DataTransferError | spec.StatusDNR
}

// outcome is the status of a backend's failure. Memory that is gone ends the client.
func (h *host) outcome(op block.Op, err error) spec.Status {
	if st, ok := err.(canceled); ok {
		return spec.Status(st)
	}
	if errors.Is(err, block.ErrMemory) {
		h.fatal(err)
	}
	st := statusOf(op, err)
	if (op == block.Read || op == block.Write) && st.SCT() == spec.SCTMedia { // no lack of room, for example
		h.c.smart.mediaErrors.Add(1)
	}
	return st
}
