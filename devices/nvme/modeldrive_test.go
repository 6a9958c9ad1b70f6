package nvme

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
	"vfiouser/irq"
)

// Where things are in the memory of a host that the model drives. Data is in a region of its own, so that
// it can be unmapped.
const (
	modelRings    = guestBase // of the admin queue, then of each I/O queue
	modelRingSize = 2 * pageSize
	modelShadow   = modelRings + (1+nvmemodel.Queues)*modelRingSize
	modelAdmin    = modelShadow + 2*pageSize
	modelFixed    = 32 * pageSize // of all that
	modelData     = guestBase + modelFixed
	modelSlot     = nvmemodel.MaxTransfer + 2*pageSize // of a command's data, with its PRP list
	modelSlots    = nvmemodel.Queues * nvmemodel.QueueDepth
	modelRAM      = modelFixed + modelSlots*modelSlot
)

// modelRig is how a subsystem and its hosts work.
type modelRig struct {
	mode  DoorbellMode
	byMsg bool // the memory of hosts is reached by message
	slow  bool // storage is asynchronous
}

func anyRig(s *choice.Source) modelRig {
	return modelRig{mode: choice.Pick(s, Trap, Shadow, Mmap), byMsg: s.Odds(4), slow: s.Bool()}
}

// modelDrive is a subsystem in this process, whose queues are polled by who waits for them.
type modelDrive struct {
	t testing.TB
	modelRig
	worker *manualWorker
	s      *Subsystem
	hosts  []*modelHost
	// formats are those of namespaces that have metadata.
	formats map[uint32]format
}

// modelHost is a guest of one of the controllers.
type modelHost struct {
	*guest
	queues [nvmemodel.Queues]*testQueue
	flying map[uint16]*modelCommand // by command identifier
	free   []uint64                 // slots
}

type modelCommand struct {
	*nvmemodel.Command
	queue *testQueue
	slot  uint64
	entry uint32 // of the queue
}

// modelMemory is memory for hosts, which fuzzers use again and again.
type modelMemory struct {
	fd  int
	ram []byte
}

func newModelMemory(t testing.TB) *modelMemory {
	fd, ram, err := sharedMemoryForTest(modelRAM)
	noError(t, err)
	t.Cleanup(func() {
		_ = unix.Munmap(ram)
		_ = unix.Close(fd)
	})
	return &modelMemory{fd, ram}
}

// takeTurns has goroutines run one at a time while a fuzzer's inputs do. What an input reaches
// then depends on the input, and waiting for a goroutine costs what it does and no more.
func takeTurns(f *testing.F) {
	n := runtime.GOMAXPROCS(1)
	f.Cleanup(func() { runtime.GOMAXPROCS(n) })
}

func newModelDrive(t testing.TB, r modelRig, memory []*modelMemory, cfg nvmemodel.Config) *modelDrive {
	d := &modelDrive{t: t, modelRig: r, worker: &manualWorker{}}
	d.s = d.subsystem(cfg.Namespaces)
	for i := range cfg.Hosts {
		d.join(d.controller(), memory[i])
	}
	return d
}

// join gives a controller a host.
func (d *modelDrive) join(c *Controller, memory *modelMemory) {
	h := &modelHost{guest: &guest{t: d.t, c: c, byMsg: d.byMsg, s: &fakeSession{fd: memory.fd, ram: memory.ram}}}
	h.idle = d.worker.poll
	d.hosts = append(d.hosts, h)
	d.connect(h)
	d.enable(h)
}

func (d *modelDrive) subsystem(list []nvmemodel.Namespace) *Subsystem {
	cfg := SubsystemConfig{Serial: "model", Pool: newRAMPool(nvmemodel.PoolSize, d.slow), Logger: slog.New(slog.DiscardHandler)}
	s, err := NewSubsystem(cfg)
	noError(d.t, err)
	s.sanitize.pace = 1
	last := uint32(0)
	var gaps []uint32 // numbers that are free in between are taken, and given back
	for _, n := range list {
		for last++; last < n.ID; last++ {
			id, err := s.AddNamespace(Namespace{Backend: newRAMDisk(4096, d.slow)})
			noError(d.t, err)
			gaps = append(gaps, id)
		}
		id, err := s.AddNamespace(d.namespace(n))
		noError(d.t, err)
		if id != n.ID {
			d.t.Fatalf("namespace %d, want %d", id, n.ID)
		}
	}
	for _, id := range gaps {
		noError(d.t, s.RemoveNamespace(id))
	}
	return s
}

func (d *modelDrive) namespace(n nvmemodel.Namespace) Namespace {
	cfg := Namespace{BlockSize: n.BlockSize}
	if f, ok := d.formats[n.ID]; ok {
		cfg = f.config()
	}
	cfg.Backend = newRAMDisk(n.Bytes, d.slow)
	return cfg
}

func (d *modelDrive) controller() *Controller {
	c, err := New(Config{Subsystem: d.s, Doorbells: d.mode, Queues: nvmemodel.Queues, MaxTransfer: nvmemodel.MaxTransfer})
	noError(d.t, err)
	return c
}

// connect attaches a client to the controller of a host.
func (d *modelDrive) connect(h *modelHost) {
	desc, err := h.c.Describe()
	noError(d.t, err)
	s := &fakeSession{table: dma.NewTable(dma.Config{}), irqs: irq.NewSet(irq.Config{Counts: desc.IRQs}), fd: h.s.fd, ram: h.s.ram}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	h.s = s
	h.mapRAM(guestBase, modelFixed, 0)
	h.mapRAM(modelData, modelRAM-modelFixed, modelFixed)
	noError(d.t, h.c.attach(s, func() worker { return d.worker }))
}

// enable enables a controller and forgets what was under way.
func (d *modelDrive) enable(h *modelHost) {
	h.queues = [nvmemodel.Queues]*testQueue{}
	h.flying = map[uint16]*modelCommand{}
	h.free = nil
	for i := range uint64(modelSlots) {
		h.free = append(h.free, modelData+i*modelSlot)
	}
	h.dbbuf = false
	h.admin = h.ringsAt(0)
	h.write32(spec.RegAQA, uint32(spec.NewAQA(nvmemodel.QueueDepth-1, nvmemodel.QueueDepth-1)))
	h.write64(spec.RegASQ, h.admin.sq)
	h.write64(spec.RegACQ, h.admin.cq)
	h.write32(spec.RegCC, uint32(spec.NewCC(true, 0, 6, 4)))
	h.until("CSTS.RDY", func() bool { return h.csts().RDY() })
	if d.mode == Shadow {
		h.shadow = modelShadow
		clear(h.bytes(modelShadow, 2*pageSize))
		h.must(spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: modelShadow, PRP2: modelShadow + pageSize})
		h.dbbuf = true
	}
}

func (h *modelHost) ringsAt(id uint16) *testQueue {
	at := modelRings + uint64(id)*modelRingSize
	clear(h.bytes(at, modelRingSize))
	for _, page := range []uint64{modelShadow, modelShadow + pageSize} { // as Linux does
		clear(h.bytes(page+uint64(sqDoorbell(id)), 4))
		clear(h.bytes(page+uint64(cqDoorbell(id)), 4))
	}
	return &testQueue{g: h.guest, id: id, size: nvmemodel.QueueDepth, phase: true, completed: map[uint16]spec.CompletionEntry{}, sq: at, cq: at + pageSize}
}

func (d *modelDrive) Admin(host int, e spec.SubmissionEntry, data []byte) (spec.Status, uint32) {
	h := d.hosts[host]
	e.PRP1 = modelAdmin
	clear(h.bytes(modelAdmin, 2*pageSize))
	copy(h.bytes(modelAdmin, pageSize), data)
	c := h.do(e)
	if e.Opcode&spec.OpcodeToHost != 0 && c.Status.OK() {
		copy(data, h.bytes(modelAdmin, pageSize))
	}
	if rest := h.bytes(modelAdmin+pageSize, pageSize); !bytes.Equal(rest, make([]byte, pageSize)) {
		d.t.Fatalf("admin command %+v has written behind its buffer", e)
	}
	return c.Status, c.DW0
}

func (d *modelDrive) CreateQueue(host, queue int) {
	h := d.hosts[host]
	q := h.ringsAt(uint16(queue + 1))
	size := uint32(q.size-1)<<16 | uint32(q.id)
	h.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: size, CDW11: 1})
	h.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: size, CDW11: 1 | uint32(q.id)<<16})
	h.queues[queue] = q
}

func (d *modelDrive) DeleteQueue(host, queue int) {
	h := d.hosts[host]
	q := h.queues[queue]
	h.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: uint32(q.id)})
	h.collect()
	h.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteCQ, CDW10: uint32(q.id)})
	h.queues[queue] = nil
	for cid, c := range h.flying {
		if c.queue == q {
			delete(h.flying, cid)
			h.free = append(h.free, c.slot)
		}
	}
}

func (d *modelDrive) Start(host, queue int, list []*nvmemodel.Command) {
	h := d.hosts[host]
	q := h.queues[queue]
	old := q.tail
	for _, c := range list {
		slot := h.free[len(h.free)-1]
		h.free = h.free[:len(h.free)-1]
		e := c.Entry
		data := slot + pageSize
		copy(h.bytes(data, modelSlot-pageSize), c.Data)
		if h.cidLast%3 == 0 { // now and then a list of descriptors
			half := uint32(len(c.Data)/2) &^ 3
			e.Flags |= spec.PSDTSGL << 6
			spec.NewSGLDescriptor(spec.SGLDataBlock, data, half).Put(h.bytes(slot, 16))
			spec.NewSGLDescriptor(spec.SGLDataBlock, data+uint64(half), uint32(len(c.Data))-half).Put(h.bytes(slot+16, 16))
			d := spec.NewSGLDescriptor(spec.SGLLastSegment, slot, 32)
			e.PRP1, e.PRP2 = d.Address, d.Word
		} else {
			e.PRP1, e.PRP2 = h.prps(data, max(1, len(c.Data)), slot, false)
		}
		e.CID = 0
		entry := q.tail
		h.flying[q.put(e)] = &modelCommand{c, q, slot, entry}
	}
	q.ringTail(old)
}

// collect takes the completions that there are.
func (h *modelHost) collect() {
	for _, q := range h.queues {
		if q == nil {
			continue
		}
		q.reap()
		for cid, done := range q.completed {
			c := h.flying[cid]
			if c == nil || c.queue != q {
				h.t.Fatalf("queue %d: command %d completed", q.id, cid)
			}
			q.check(&done, c.entry)
			delete(h.flying, cid)
			delete(q.completed, cid)
			c.Done, c.Status = true, done.Status&^spec.StatusMore
			if c.Entry.Opcode&spec.OpcodeToHost != 0 {
				copy(c.Data, h.bytes(c.slot+pageSize, len(c.Data)))
			}
			h.free = append(h.free, c.slot)
		}
	}
}

// check looks at what a completion says beside the status: the head of the queue is behind the
// entry of the command, and not behind the tail.
func (q *testQueue) check(c *spec.CompletionEntry, entry uint32) {
	ahead := (uint32(c.SQHead) + q.size - 1 - entry) % q.size
	if c.SQID != q.id || uint32(c.SQHead) >= q.size || ahead >= (q.tail+q.size-entry)%q.size {
		q.g.t.Fatalf("queue %d: the command in entry %d of %d completed as %+v, with tail %d", q.id, entry, q.size, *c, q.tail)
	}
	if c.DW0 != 0 || c.DW1 != 0 {
		q.g.t.Fatalf("queue %d: a result in %+v", q.id, *c)
	}
}

func (d *modelDrive) Wait(host int) {
	h := d.hosts[host]
	h.until("commands", func() bool {
		h.collect()
		return len(h.flying) == 0
	})
}

func (d *modelDrive) Abort(host int, c *nvmemodel.Command) bool {
	h := d.hosts[host]
	for cid, x := range h.flying {
		if x.Command == c {
			return h.must(spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: uint32(cid)<<16 | uint32(x.queue.id)}).DW0&1 == 0
		}
	}
	return false
}

func (d *modelDrive) Restart(host int, how nvmemodel.Restart) {
	h := d.hosts[host]
	switch how {
	case nvmemodel.SubsystemReset:
		h.write32(spec.RegNSSR, spec.NSSRReset)
		for _, h := range d.hosts {
			h.until("the subsystem reset", func() bool { return !h.csts().RDY() })
			d.enable(h)
		}
		return
	case nvmemodel.Shutdown:
		h.write32(spec.RegCC, uint32(spec.NewCC(true, 0, 6, 4).WithSHN(spec.ShutdownNormal)))
		h.until("the shutdown", func() bool { return h.csts().SHST() == spec.ShutComplete })
		fallthrough
	case nvmemodel.Reset:
		h.write32(spec.RegCC, 0)
		h.until("CSTS.RDY to fall", func() bool { return !h.csts().RDY() })
	case nvmemodel.Disconnect:
		s := h.s
		h.leave()
		h.s = s
		d.connect(h)
	}
	d.enable(h)
}

func (d *modelDrive) Unmap(host int) {
	h := d.hosts[host]
	unmapped := make(chan struct{})
	noError(d.t, h.s.table.Unmap(modelData, modelRAM-modelFixed, func() { close(unmapped) }))
	h.waitFor("the memory to be unmapped", unmapped)
}

func (d *modelDrive) Map(host int) {
	d.hosts[host].mapRAM(modelData, modelRAM-modelFixed, modelFixed)
}

func (d *modelDrive) Migrate(list []nvmemodel.Namespace) {
	h := d.hosts[0]
	state := h.saved()
	oldSubsystem, oldController, oldSession := d.s, h.c, h.s
	d.s = d.subsystem(list)
	h.c = d.controller()
	d.connect(h)
	h.lock(true)
	noError(d.t, h.load(state))
	h.lock(false)
	old := &guest{t: d.t, c: oldController, s: oldSession}
	old.leave()
	noError(d.t, oldController.Close())
	noError(d.t, oldSubsystem.Close())
}

func (d *modelDrive) Fail(nsid uint32, what nvmemodel.Failure, on bool) bool {
	b, err := d.s.Backend(nsid)
	noError(d.t, err)
	disk := b.(*ramDisk)
	for _, op := range [][]block.Op{{block.Read}, {block.Write}, {block.WriteZeroes, block.Discard}}[what] {
		disk.failing[op].Store(on)
	}
	return true
}

func (d *modelDrive) Add(n nvmemodel.Namespace) uint32 {
	id, err := d.s.AddNamespace(d.namespace(n))
	noError(d.t, err)
	return id
}

func (d *modelDrive) Resize(nsid uint32, bytes int64) { noError(d.t, d.s.ResizeNamespace(nsid, bytes)) }
func (d *modelDrive) Remove(nsid uint32)              { noError(d.t, d.s.RemoveNamespace(nsid)) }

func (d *modelDrive) close() {
	for _, h := range d.hosts {
		h.leave()
		noError(d.t, h.c.Close())
	}
	noError(d.t, d.s.Close())
}

// waitFor is wait that polls meanwhile.
func (h *modelHost) waitFor(what string, c <-chan struct{}) {
	deadline := time.Now().Add(patience)
	for {
		select {
		case <-c:
			return
		default:
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no end of waiting for %s", what)
		}
		h.idle()
		runtime.Gosched()
	}
}
