package nvme

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// maxCouriers is how many commands of one client are carried out at the same time by
// goroutines of their own.
const maxCouriers = 32

// couriers carries out commands that have to wait: their data is in memory that is
// reached by message, or they are several requests. Goroutines start with the work
// and stay until the client leaves.
type couriers struct {
	h *host

	mu      sync.Mutex
	more    sync.Cond
	queue   waitList
	all     []*courier
	idle    int
	running int
	closed  bool
	wg      sync.WaitGroup

	// bulk is held by the one whose work no data of the host bounds, which for memory is
	// nothing but processor time: 32 at a time would leave none to other devices.
	bulk sync.Mutex
}

func (p *couriers) init(h *host) {
	p.h = h
	p.more.L = &p.mu
}

// run queues a command. It does not block.
func (p *couriers) run(cmd *command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cmd.ns != nil {
		cmd.era = cmd.ns.era.Load()
	}
	p.queue.add(cmd)
	switch {
	case p.idle > 0:
		p.more.Signal()
	case p.running < maxCouriers:
		p.running++
		p.wg.Add(1)
		go p.work()
	}
}

// close ends the goroutines when the queue is empty, and waits.
func (p *couriers) close() {
	p.mu.Lock()
	p.closed = true
	p.more.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *couriers) work() {
	defer p.wg.Done()
	c := &courier{h: p.h, ended: make(chan error, 1)}
	c.left.L = &c.mu
	p.h.c.subsystem.gather()
	p.mu.Lock()
	p.all = append(p.all, c)
	p.mu.Unlock()
	for {
		p.mu.Lock()
		for p.queue.head == nil && !p.closed {
			p.idle++
			p.more.Wait()
			p.idle--
		}
		if p.queue.head == nil {
			p.mu.Unlock()
			return
		}
		cmd := p.queue.remove()
		c.begin(cmd)
		p.mu.Unlock()
		if second := cmd.second; second != nil {
			st1, st2 := c.pair(cmd, second)
			cmd.finish(st1)
			second.finish(st2)
		} else {
			cmd.finish(c.execute(cmd))
		}
		c.finished()
	}
}

// courier is one of the goroutines. Guest memory is copied through its own.
type courier struct {
	h      *host
	data   dataWalker
	bounce []byte
	piece  []byte     // of blocks that do not go to the host, see inspect
	ended  chan error // a request's result
	units  []byte     // of stored metadata
	mixed  []byte     // extended blocks
	passed *gate      // that the command being executed has passed
	script *script    // of a fused pair

	quit <-chan struct{} // closed when it is to end; nil: never

	mu   sync.Mutex
	left sync.Cond      // it is done with cmd
	cmd  *command       // that it executes
	ns   *namespace     // of what is in flight
	sent *block.Request // what is in flight, of its own
}

// CompleteBlock takes the result of the courier's own request.
func (c *courier) CompleteBlock(_ *block.Request, err error) { c.ended <- err }

// submit runs a request to its end.
func (c *courier) submit(ns *namespace, r block.Request) spec.Status {
	r.Completer = c
	ended, err := ns.backend.Submit(&r)
	if !ended {
		err = c.await(ns, &r)
	}
	if err != nil {
		return c.h.outcome(r.Op, err)
	}
	return spec.Success
}

func (c *courier) execute(cmd *command) (st spec.Status) {
	defer func() {
		if v := recover(); v != nil {
			c.h.fault(v, debug.Stack())
			st = spec.InternalError
		}
		c.release()
	}()
	for {
		if c.abandoned() {
			return spec.AbortSQDeletion
		}
		if st = c.run(cmd); st != changed {
			return st
		}
		if _, st = c.h.c.prepare(cmd); !st.OK() {
			return st
		}
	}
}

// run carries out a command that was checked.
func (c *courier) run(cmd *command) spec.Status {
	if run := metadataCommand(cmd.entry.Opcode); run != nil && cmd.ns.protection.metadata > 0 {
		return run(c, cmd)
	}
	switch cmd.entry.Opcode {
	case spec.NVMRead, spec.NVMWrite:
		return c.transfer(cmd)
	case spec.NVMDatasetManagement:
		return c.datasetManagement(cmd)
	case spec.NVMCompare:
		return c.compare(cmd)
	case spec.NVMVerify:
		return c.verify(cmd)
	case spec.NVMCopy:
		return c.copy(cmd)
	case spec.NVMWriteUncorrectable:
		return c.writeUncorrectable(cmd)
	case spec.NVMReservationRegister:
		return c.registerKey(cmd)
	case spec.NVMReservationAcquire:
		return c.acquire(cmd)
	case spec.NVMReservationRelease:
		return c.releaseKey(cmd)
	case spec.NVMReservationReport:
		return c.report(cmd)
	case spec.NVMFlush:
		if cmd.entry.NSID == spec.BroadcastNSID {
			return c.h.c.flushAll(c)
		}
	}
	r := cmd.request
	r.Buffers = nil
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	if r.Op == block.WriteZeroes {
		return c.store(cmd.ns, r)
	}
	return c.submit(cmd.ns, r)
}

// store is submit for a request that writes blocks, which are readable then.
func (c *courier) store(ns *namespace, r block.Request) spec.Status {
	u := &c.h.c.subsystem.uncorrectable
	lba, n := uint64(r.Offset)>>ns.shift, uint64(r.Length)>>ns.shift
	if !u.writable(ns, lba, n) {
		return spec.WriteFault
	}
	st := c.submit(ns, r)
	if st.OK() {
		u.written(ns, lba, n)
	}
	return st
}

// buffer is the courier's memory for the data of one command.
func (c *courier) buffer(n int) []byte {
	if cap(c.bounce) < n {
		c.bounce = make([]byte, n)
	}
	return c.bounce[:n]
}

// transfer moves the data of a Read or Write through private memory.
func (c *courier) transfer(cmd *command) spec.Status {
	data := c.buffer(int(cmd.request.Length))
	lba, n := cmd.entry.LBA(), uint64(cmd.entry.Blocks())
	r := cmd.request
	r.Buffers = [][]byte{data}
	if r.Op == block.Write {
		if st := c.fromHost(&cmd.entry, data); !st.OK() {
			return st
		}
		if st := c.pass(cmd); !st.OK() {
			return st
		}
		return cmd.ns.whole(lba, n, func() spec.Status { return c.store(cmd.ns, r) })
	}
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	if st := cmd.ns.whole(lba, n, func() spec.Status { return c.submit(cmd.ns, r) }); !st.OK() {
		return st
	}
	c.release()
	return c.toHost(&cmd.entry, data)
}

// datasetManagement deallocates ranges; the other attributes are hints and ignored.
func (c *courier) datasetManagement(cmd *command) spec.Status {
	if cmd.entry.CDW11&spec.DSMDeallocate == 0 {
		return spec.Success
	}
	list := make([]byte, (int(cmd.entry.CDW10&0xff)+1)*spec.DSMRangeSize)
	if st := c.fromHost(&cmd.entry, list); !st.OK() {
		return st
	}
	// As all of them do first: who has it may wait at the gate for those who have passed.
	c.h.couriers.bulk.Lock()
	defer c.h.couriers.bulk.Unlock()
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	ranges := make([]spec.DSMRange, len(list)/spec.DSMRangeSize)
	ns := cmd.ns
	for i := range ranges {
		r := &ranges[i]
		r.Get(list[i*spec.DSMRangeSize:])
		if uint64(r.Blocks) > ns.blocks || r.LBA > ns.blocks-uint64(r.Blocks) {
			return spec.LBAOutOfRange | spec.StatusDNR
		}
	}
	for _, r := range ranges {
		if r.Blocks == 0 {
			continue
		}
		if c.abandoned() {
			return spec.AbortSQDeletion
		}
		if st := c.deallocate(ns, r.LBA, uint64(r.Blocks)); !st.OK() {
			return st
		}
	}
	return spec.Success
}

// fromHost fills p with the data of a command, wherever that is.
func (c *courier) fromHost(e *spec.SubmissionEntry, p []byte) spec.Status {
	return c.access(e, p, c.readHost)
}

// toHost is the other direction.
func (c *courier) toHost(e *spec.SubmissionEntry, p []byte) spec.Status {
	return c.access(e, p, c.h.writeDMA)
}

func (c *courier) access(e *spec.SubmissionEntry, p []byte, move func(uint64, []byte) error) spec.Status {
	if st := c.data.walk(e, uint64(len(p)), c); st != spec.Success {
		return st
	}
	for _, run := range c.data.runs {
		if run.bucket {
			p = p[run.n:]
			continue
		}
		if err := move(run.iova, p[:run.n]); err != nil {
			return spec.DataTransferError | spec.StatusDNR
		}
		p = p[run.n:]
	}
	return spec.Success
}

// readList reads a piece of a PRP list or an SGL segment for the walker.
func (c *courier) readList(iova uint64, p []byte) spec.Status {
	if err := c.readHost(iova, p); err != nil {
		return spec.DataTransferError | spec.StatusDNR
	}
	return spec.Success
}

func (h *host) readDMA(iova uint64, p []byte) error {
	return h.s.ReadDMA(h.s.Context(), iova, p)
}

func (h *host) writeDMA(iova uint64, p []byte) error {
	return h.s.WriteDMA(h.s.Context(), iova, p)
}

// fault ends the client after a panic.
func (h *host) fault(v any, stack []byte) {
	err := faultError(v)
	if !errors.Is(err, errMemoryGone) {
		h.s.Logger().Error("defect in the NVMe controller", "panic", v, "stack", string(stack))
	}
	h.fatal(err)
}

var errMemoryGone = errors.New("nvme: guest memory has gone")

func faultError(v any) error {
	if addr, ok := dma.IsFault(v); ok {
		return fmt.Errorf("%w (fault at %#x)", errMemoryGone, addr)
	}
	return fmt.Errorf("nvme: panic: %v", v)
}
