package hostile

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// ramBase is the address of an attacker's memory for the device.
const ramBase = 1 << 32

// rig drives the victim's controller from an attacker's connection. It does what it is
// told and checks nothing of it.
type rig struct {
	*raw
	ram    *ram
	bells  int // descriptor of the page with the doorbells, or -1: they are messages
	shadow bool
	// Offsets of the pages of Doorbell Buffer Config.
	shadows, events uint64
	admin           *pair
	quiet           bool // rings by message only, even if there are shadows
}

// pair is a queue pair of a rig.
type pair struct {
	rig    *rig
	id     uint16
	size   uint32 // entries, of both queues
	sq, cq uint64 // offsets
	tail   uint32
	head   uint32
	phase  bool
	cid    uint16
}

// newRig connects and shares memory of the given size.
func (a *attack) newRig(size uint64) *rig {
	a.Helper()
	g := &rig{raw: a.session(), ram: a.newRAM(size), bells: -1}
	g.call(codec.CmdDMAMap, mapping(ramBase, size, 0, readWrite), g.ram.fd)
	return g
}

// started is a rig whose controller is up, with an I/O queue pair of the given size. In
// the shadow mode the doorbells of I/O queues are in memory, in the mapped mode all are.
func (a *attack) started(entries uint32) (*rig, *pair) {
	a.Helper()
	g := a.newRig(16 << 20)
	g.start()
	return g, g.pair(1, entries)
}

// start brings the controller up.
func (g *rig) start() {
	g.a.Helper()
	if g.a.lab.mode == nvme.Mmap {
		g.mapDoorbells()
	}
	g.enable(g.newPair(0, 64))
	if g.a.lab.mode == nvme.Shadow {
		g.shadows, g.events = g.ram.alloc(pageSize), g.ram.alloc(pageSize)
		g.shadowDoorbells()
	}
}

// shadowDoorbells is Doorbell Buffer Config.
func (g *rig) shadowDoorbells() {
	g.a.Helper()
	g.ram.write(g.shadows, make([]byte, pageSize))
	g.ram.write(g.events, make([]byte, pageSize))
	g.do(spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: ramBase + g.shadows, PRP2: ramBase + g.events})
	g.shadow = true
}

// mapDoorbells asks for the descriptor of the doorbell page. Writing to it is what
// writing to a mapping is.
func (g *rig) mapDoorbells() {
	g.a.Helper()
	g.call(codec.CmdGetRegionInfo, (&codec.RegionInfo{ArgSz: 1024}).AppendRequest(nil))
	if len(g.fds) != 1 {
		g.a.Fatalf("%d descriptors for the doorbells", len(g.fds))
	}
	g.bells, g.fds = g.fds[0], nil
	g.a.atEnd(func() { _ = unix.Close(g.bells) })
}

// enable brings the controller up with an admin queue pair.
func (g *rig) enable(admin *pair) {
	g.a.Helper()
	g.admin = admin
	g.write32(spec.RegAQA, uint32(spec.NewAQA(uint16(admin.size-1), uint16(admin.size-1))))
	g.write64(spec.RegASQ, ramBase+admin.sq)
	g.write64(spec.RegACQ, ramBase+admin.cq)
	g.write32(spec.RegCC, enabled)
	g.until("the controller is ready", func() bool { return g.csts().RDY() })
}

const enabled = uint32(spec.CCEnable) | spec.SubmissionEntryExponent<<16 | spec.CompletionEntryExponent<<20

// disable takes the controller down.
func (g *rig) disable() {
	g.a.Helper()
	g.write32(spec.RegCC, 0)
	g.until("the controller is down", func() bool { return !g.csts().RDY() })
}

// restart resets the controller and brings it up again, without I/O queues.
func (g *rig) restart() {
	g.a.Helper()
	g.disable()
	p := g.admin
	p.tail, p.head, p.phase = 0, 0, true
	g.ram.write(p.cq, make([]byte, p.size*spec.CompletionEntrySize))
	g.enable(p)
	if g.shadow {
		g.shadow = false
		g.shadowDoorbells()
	}
}

// until polls for a condition and serves the server's commands meanwhile.
func (c *raw) until(what string, holds func() bool) {
	c.a.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			c.a.Fatalf("in vain: %s", what)
		}
		if err := c.pump(); err != nil {
			c.a.Fatalf("while waiting until %s: %v", what, err)
		}
		time.Sleep(20 * time.Microsecond) // polls
	}
}

func access(region int, off uint64, data []byte) []byte {
	return (&codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(len(data)), Data: data}).Append(nil)
}

func (c *raw) readRegion(region int, off uint64, n int) []byte {
	c.a.Helper()
	ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(n)}
	var got codec.RegionAccess
	if err := got.DecodeReadReply(c.call(codec.CmdRegionRead, ask.AppendHead(nil))); err != nil {
		c.a.Fatal(err)
	}
	return got.Data
}

func (c *raw) write32(off uint64, v uint32) {
	c.a.Helper()
	c.call(codec.CmdRegionWrite, access(0, off, binary.LittleEndian.AppendUint32(nil, v)))
}

func (c *raw) write64(off, v uint64) {
	c.a.Helper()
	c.call(codec.CmdRegionWrite, access(0, off, binary.LittleEndian.AppendUint64(nil, v)))
}

func (c *raw) post32(off uint64, v uint32) {
	c.a.Helper()
	c.post(codec.CmdRegionWrite, access(0, off, binary.LittleEndian.AppendUint32(nil, v)))
}

func (c *raw) csts() spec.CSTS {
	c.a.Helper()
	return spec.CSTS(binary.LittleEndian.Uint32(c.readRegion(0, spec.RegCSTS, 4)))
}

// bell is the offset of a doorbell in the page of doorbells.
func bell(id uint16, completion bool) uint64 {
	if completion {
		return 8*uint64(id) + 4
	}
	return 8 * uint64(id)
}

// ring writes a doorbell wherever it is. The register of a shadowed doorbell is written
// in any case, which is allowed.
func (g *rig) ring(id uint16, completion bool, v uint32) {
	g.a.Helper()
	off := bell(id, completion)
	if g.shadow && id > 0 && !g.quiet {
		g.ram.write32(g.shadows+off, v)
	}
	if g.bells >= 0 {
		if _, err := unix.Pwrite(g.bells, binary.LittleEndian.AppendUint32(nil, v), spec.RegDoorbells+int64(off)); err != nil {
			g.a.Fatal(err)
		}
		return
	}
	g.post32(spec.RegDoorbells+off, v)
}

// newPair makes the memory of a queue pair.
func (g *rig) newPair(id uint16, entries uint32) *pair {
	g.a.Helper()
	return &pair{
		rig: g, id: id, size: entries, phase: true,
		sq: g.ram.alloc(uint64(entries) * spec.SubmissionEntrySize),
		cq: g.ram.alloc(uint64(entries) * spec.CompletionEntrySize),
	}
}

// pair creates an I/O queue pair, with an interrupt on the vector of its number.
func (g *rig) pair(id uint16, entries uint32) *pair {
	g.a.Helper()
	p := g.newPair(id, entries)
	g.ram.write(p.cq, make([]byte, entries*spec.CompletionEntrySize))
	if g.shadow {
		g.ram.write64(g.shadows+bell(id, false), 0)
	}
	g.do(createCQ(id, entries, ramBase+p.cq, id))
	g.do(createSQ(id, entries, ramBase+p.sq, id))
	return p
}

func createCQ(id uint16, entries uint32, iova uint64, vector uint16) spec.SubmissionEntry {
	const contiguous, interrupt = 1, 2
	return spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: iova,
		CDW10: uint32(id) | (entries-1)<<16, CDW11: contiguous | interrupt | uint32(vector)<<16}
}

func createSQ(id uint16, entries uint32, iova uint64, cq uint16) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: iova,
		CDW10: uint32(id) | (entries-1)<<16, CDW11: 1 | uint32(cq)<<16}
}

// put writes an entry at the tail, without ringing.
func (p *pair) put(e spec.SubmissionEntry) {
	p.rig.a.Helper()
	p.cid++
	e.CID = p.cid
	var b [spec.SubmissionEntrySize]byte
	e.Put(b[:])
	p.rig.ram.write(p.sq+uint64(p.tail)*spec.SubmissionEntrySize, b[:])
	p.tail = (p.tail + 1) % p.size
}

func (p *pair) ring() { p.rig.ring(p.id, false, p.tail) }

// take takes a completion if there is one; release rings for what was taken.
func (p *pair) take() (e spec.CompletionEntry, ok bool) {
	p.rig.a.Helper()
	var b [spec.CompletionEntrySize]byte
	p.rig.ram.read(p.cq+uint64(p.head)*spec.CompletionEntrySize, b[:])
	if e.Get(b[:]); e.Phase != p.phase {
		return e, false
	}
	if p.head = (p.head + 1) % p.size; p.head == 0 {
		p.phase = !p.phase
	}
	return e, true
}

func (p *pair) release() { p.rig.ring(p.id, true, p.head) }

// wait waits for n completions, and returns the last one.
func (p *pair) wait(n int) (e spec.CompletionEntry) {
	p.rig.a.Helper()
	for ; n > 0; n-- {
		p.rig.until("there is a completion", func() (ok bool) { e, ok = p.take(); return ok })
	}
	p.release()
	return e
}

// status executes one command.
func (p *pair) status(e spec.SubmissionEntry) spec.Status {
	p.rig.a.Helper()
	p.put(e)
	p.ring()
	return p.wait(1).Status
}

// do executes an admin command that must succeed.
func (g *rig) do(e spec.SubmissionEntry) {
	g.a.Helper()
	if st := g.admin.status(e); !st.OK() {
		g.a.Fatalf("admin command %#x: %v", e.Opcode, st)
	}
}

// transfer is a Read or Write of whole blocks.
func transfer(opcode uint8, ns uint32, lba uint64, blocks uint32, prp1, prp2 uint64) spec.SubmissionEntry {
	e := spec.SubmissionEntry{Opcode: opcode, NSID: ns, PRP1: prp1, PRP2: prp2, CDW12: blocks - 1}
	e.SetLBA(lba)
	return e
}

// flood fills a queue with reads of a page each and rings once. The completions are
// nobody's business.
func (p *pair) flood(ns uint32, iova uint64) {
	p.rig.a.Helper()
	n := p.size - 1
	b := make([]byte, 0, int(n)*spec.SubmissionEntrySize)
	for i := range n {
		e := transfer(spec.NVMRead, ns, uint64(i)*8%(diskSize/blockSize), 8, iova, 0)
		e.CID = uint16(i)
		b = append(b, make([]byte, spec.SubmissionEntrySize)...)
		e.Put(b[len(b)-spec.SubmissionEntrySize:])
	}
	if p.tail != 0 {
		p.rig.a.Fatal("only a new queue is flooded")
	}
	p.rig.ram.write(p.sq, b)
	p.tail = n
	p.ring()
}

// eventfd makes an eventfd, which is closed when the attack is over.
func (a *attack) eventfd() int {
	a.Helper()
	e, err := client.NewEventfd()
	if err != nil {
		a.Fatal(err)
	}
	a.atEnd(func() { e.Close() })
	return e.FD()
}
