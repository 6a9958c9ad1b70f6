package nvme

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/irq"
)

var _ engine.Migrator = (*Controller)(nil)

func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(max(4, runtime.GOMAXPROCS(0))) // what the engine asks for
	goleak.VerifyTestMain(m)
}

const (
	guestBase = 0x10000
	guestSize = 32 << 20
	patience  = 20 * time.Second
)

// guest plays the driver, and the reactor: it calls the register handlers.
type guest struct {
	t       testing.TB // of the test that is running
	c       *Controller
	s       *fakeSession
	byMsg   bool
	next    uint64 // free guest memory
	dbbuf   bool
	shadow  uint64 // doorbell page; the event indexes are in the next one
	admin   *testQueue
	cidLast uint16
	idle    func() int // called while waiting, if set
}

// testQueue is a queue pair as the driver sees it.
type testQueue struct {
	g         *guest
	id        uint16
	size      uint32
	sq, cq    uint64
	tail      uint32
	head      uint32
	phase     bool
	completed map[uint16]spec.CompletionEntry
}

type rig struct {
	mode     DoorbellMode
	byMsg    bool
	backends []block.Backend
	blocks   int
	formats  []format // of the namespaces, nil: without metadata
	queues   int
	mdts     int
	workers  func() worker // nil: an engine's
}

func newRAM(t testing.TB) (int, []byte) {
	fd, mem, err := sharedMemoryForTest(guestSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.ReleaseSharedMemory(fd, mem) })
	return fd, mem
}

func sharedMemoryForTest(size int) (int, []byte, error) {
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, nil, err
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return -1, nil, err
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return fd, mem, err
}

func memory(t testing.TB, size int64) block.Backend {
	b, err := block.Memory(size)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newController(t testing.TB, r *rig) *Controller {
	if r.backends == nil {
		r.backends = []block.Backend{memory(t, 64<<20)}
	}
	cfg := Config{Doorbells: r.mode, Serial: "test", Queues: r.queues, MaxTransfer: r.mdts}
	for i, b := range r.backends {
		n := Namespace{BlockSize: r.blocks}
		if r.formats != nil {
			n = r.formats[i].config()
		}
		n.Backend = b
		cfg.Namespaces = append(cfg.Namespaces, n)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// newGuest attaches a client and registers its leaving.
func newGuest(t testing.TB, r rig) *guest {
	c := newController(t, &r)
	pick := r.workers
	if pick == nil {
		e, err := engine.New(engine.Config{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		pick = func() worker { return e.PickWorker() }
	}
	g := attachGuest(t, c, r.byMsg, pick)
	t.Cleanup(g.leave)
	return g
}

func attachGuest(t testing.TB, c *Controller, byMsg bool, pick func() worker) *guest {
	old := debug.SetPanicOnFault(true)
	t.Cleanup(func() { debug.SetPanicOnFault(old) })
	d, err := c.Describe()
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeSession{table: dma.NewTable(dma.Config{}), irqs: irq.NewSet(irq.Config{Counts: d.IRQs})}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.fd, s.ram = newRAM(t)
	g := &guest{t: t, c: c, s: s, byMsg: byMsg, next: guestBase}
	g.mapRAM(guestBase, guestSize, 0)
	if err := c.attach(s, pick); err != nil {
		t.Fatal(err)
	}
	return g
}

// mapRAM announces a piece of the guest's memory.
func (g *guest) mapRAM(iova, size, off uint64) {
	g.t.Helper()
	fd := -1
	if !g.byMsg {
		var err error
		if fd, err = unix.Dup(g.s.fd); err != nil {
			g.t.Fatal(err)
		}
	}
	err := g.s.table.Map(dma.Mapping{IOVA: iova, Size: size, Prot: dma.ProtRead | dma.ProtWrite, FD: fd, Offset: off})
	if err != nil {
		g.t.Fatal(err)
	}
}

// leave is what the engine does when a client hangs up.
func (g *guest) leave() {
	if g.s == nil {
		return
	}
	s := g.s
	g.s = nil
	s.cancel(errors.New("client hung up"))
	g.lock(true)
	h := g.c.host
	g.c.detach()
	s.irqs.Close()
	unmapped := make(chan struct{})
	s.table.Close(func() { close(unmapped) })
	g.wait("the memory to be released", unmapped)
	g.wait("the control goroutine", h.done)
	if st := s.table.Stats(); st.Readers != 0 || st.Mmaps != 0 || st.Retired != 0 {
		g.t.Errorf("left behind: %+v", st)
	}
}

func (g *guest) lock(hold bool) {
	done := make(chan struct{})
	g.c.lock(hold, func() { close(done) })
	g.wait("LockDataPath", done)
}

func (g *guest) wait(what string, c <-chan struct{}) {
	g.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		panic("no end of waiting for " + what)
	}
}

// until polls as a driver does.
func (g *guest) until(what string, ok func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			g.t.Fatalf("no end of waiting for %s", what)
		}
		if g.idle != nil {
			g.idle()
		}
		runtime.Gosched()
	}
}

func (g *guest) bytes(iova uint64, n int) []byte { return g.s.ram[iova-guestBase:][:n:n] }

func (g *guest) alloc(pages int) uint64 {
	at := g.next
	g.next += uint64(pages) * pageSize
	if g.next > guestBase+guestSize {
		g.t.Fatal("guest memory is used up")
	}
	clear(g.bytes(at, pages*pageSize))
	return at
}

func (g *guest) write32(off uint64, v uint32) {
	_ = g.c.writeBAR0(off, binary.LittleEndian.AppendUint32(nil, v))
}

func (g *guest) write64(off uint64, v uint64) {
	_ = g.c.writeBAR0(off, binary.LittleEndian.AppendUint64(nil, v))
}

func (g *guest) read32(off uint64) uint32 {
	var b [4]byte
	_ = g.c.readBAR0(off, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (g *guest) csts() spec.CSTS { return spec.CSTS(g.read32(spec.RegCSTS)) }

// enable sets up the admin queue as a driver does.
func (g *guest) enable() {
	g.t.Helper()
	g.enableAs(spec.NewCC(true, 0, 6, 4))
}

func (g *guest) enableAs(cc spec.CC) {
	g.t.Helper()
	q := g.newQueue(0, 32)
	g.admin = q
	g.write32(spec.RegAQA, uint32(spec.NewAQA(31, 31)))
	g.write64(spec.RegASQ, q.sq)
	g.write64(spec.RegACQ, q.cq)
	g.write32(spec.RegCC, uint32(cc))
	g.until("CSTS.RDY", func() bool { return g.csts().RDY() })
}

func (g *guest) disable() {
	g.t.Helper()
	g.write32(spec.RegCC, uint32(spec.NewCC(false, 0, 6, 4)))
	g.until("CSTS.RDY to fall", func() bool { return !g.csts().RDY() })
	g.dbbuf = false
}

func (g *guest) newQueue(id uint16, size uint32) *testQueue {
	return &testQueue{
		g: g, id: id, size: size, phase: true, completed: map[uint16]spec.CompletionEntry{},
		sq: g.alloc(int(size*64+4095) / 4096), cq: g.alloc(int(size*16+4095) / 4096),
	}
}

// useDBBUF configures shadow doorbells.
func (g *guest) useDBBUF() {
	g.t.Helper()
	g.shadow = g.alloc(2)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: g.shadow, PRP2: g.shadow + pageSize})
	g.dbbuf = true
}

// createQueue makes a pair with an interrupt vector of its own.
func (g *guest) createQueue(id uint16, size uint32) *testQueue {
	g.t.Helper()
	q := g.newQueue(id, size)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: uint32(id) | (size-1)<<16, CDW11: 3 | uint32(id)<<16})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: uint32(id) | (size-1)<<16, CDW11: 1 | uint32(id)<<16})
	return q
}

func (g *guest) cid() uint16 {
	g.cidLast++
	return g.cidLast
}

// do runs an admin command.
func (g *guest) do(e spec.SubmissionEntry) spec.CompletionEntry {
	g.t.Helper()
	return g.admin.do(e)
}

func (g *guest) must(e spec.SubmissionEntry) spec.CompletionEntry {
	g.t.Helper()
	c := g.do(e)
	if !c.Status.OK() {
		g.t.Fatalf("admin command %#x: %v", e.Opcode, c.Status)
	}
	return c
}

// ring moves a doorbell in the way of the mode.
func (g *guest) ring(off int, old, v uint32, shadow bool) {
	switch {
	case g.c.cfg.Doorbells == Mmap:
		dma.Store32(g.c.doorbells.page, off, v)
	case g.dbbuf && shadow:
		b := g.bytes(g.shadow, 2*pageSize)
		dma.Store32(b, off, v)
		event := dma.Load32(b, pageSize+off)
		if uint16(v-event-1) < uint16(v-old) {
			g.write32(doorbellOffset+uint64(off), v)
		}
	default:
		g.write32(doorbellOffset+uint64(off), v)
	}
}

// put writes an entry without ringing the doorbell.
func (q *testQueue) put(e spec.SubmissionEntry) uint16 {
	if e.CID == 0 {
		e.CID = q.g.cid()
	}
	e.Put(q.g.bytes(q.sq+uint64(q.tail)*64, 64))
	q.tail = (q.tail + 1) % q.size
	return e.CID
}

func (q *testQueue) ringTail(old uint32) { q.g.ring(sqDoorbell(q.id), old, q.tail, q.id != 0) }

func (q *testQueue) submit(e spec.SubmissionEntry) uint16 {
	old := q.tail
	cid := q.put(e)
	q.ringTail(old)
	return cid
}

// reap takes completions; it says whether there were any.
func (q *testQueue) reap() bool {
	old := q.head
	for {
		b := q.g.bytes(q.cq+uint64(q.head)*16, 16)
		hi := dma.Load64(b, 8)
		var c spec.CompletionEntry
		c.SetWords(dma.Load64(b, 0), hi)
		if c.Phase != q.phase {
			break
		}
		if _, twice := q.completed[c.CID]; twice {
			q.g.t.Fatalf("queue %d: command %d completed twice", q.id, c.CID)
		}
		q.completed[c.CID] = c
		if q.head++; q.head == q.size {
			q.head, q.phase = 0, !q.phase
		}
	}
	if q.head == old {
		return false
	}
	q.g.ring(cqDoorbell(q.id), old, q.head, q.id != 0)
	return true
}

// result waits for a command.
func (q *testQueue) result(cid uint16) spec.CompletionEntry {
	q.g.t.Helper()
	var c spec.CompletionEntry
	q.g.until("a completion", func() bool {
		q.reap()
		var ok bool
		c, ok = q.completed[cid]
		return ok
	})
	delete(q.completed, cid)
	c.Status &^= spec.StatusMore // every failure has it: package nvmeconformance checks that
	return c
}

func (q *testQueue) do(e spec.SubmissionEntry) spec.CompletionEntry {
	q.g.t.Helper()
	return q.result(q.submit(e))
}

func (q *testQueue) status(e spec.SubmissionEntry) spec.Status {
	q.g.t.Helper()
	return q.do(e).Status
}

// rw makes a Read or Write of n blocks.
func rw(op uint8, nsid uint32, lba uint64, n int, prp1, prp2 uint64) spec.SubmissionEntry {
	e := spec.SubmissionEntry{Opcode: op, NSID: nsid, PRP1: prp1, PRP2: prp2, CDW12: uint32(n - 1)}
	e.SetLBA(lba)
	return e
}
