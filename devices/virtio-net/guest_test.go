package virtionet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio-net/spec"
	virtio "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// all features.
const all = ^uint64(0)

// options of a guest.
type options struct {
	features  uint64 // accepted if offered, and VERSION_1
	without   uint64 // not accepted
	size      int    // of the queues; 0: 64
	buffer    int    // size of a receive buffer; 0: 2,048
	buffers   int    // number of them; 0: as many as the queue has
	byMessage bool
	socket    string // where to attach; "": the card's
	noReceive int    // pair whose receive queue is not enabled; 0: none
	config    func(*driver.Device)
}

// guest is a driver.
type guest struct {
	t        testing.TB
	o        options
	mem      *client.Memory
	dev      *client.Device
	d        *driver.Device
	pairs    []*guestPair
	control  *driver.Queue
	buf      client.Chunk // of commands
	features uint64
	header   int
}

// guestPair is two queues with their buffers.
type guestPair struct {
	g      *guest
	rx, tx *driver.Queue
	rxBuf  client.Chunk
	txBuf  client.Chunk
	txFree []uint32
	done   []driver.Used
	got    []linktest.Frame
	part   linktest.Frame // of which buffers are still to come
	more   int
	report []spec.HashReport
	merged []int
}

const txSlot = 66 << 10

// attach drives the card as a guest does, with as many pairs as it has.
func (r *rig) attach(o options) *guest {
	t := r.t
	t.Helper()
	if o.size == 0 {
		o.size = 64
	}
	if o.buffer == 0 {
		o.buffer = 2048
	}
	if o.buffers == 0 {
		o.buffers = o.size
	}
	g := &guest{t: t, o: o}
	var err error
	if o.socket == "" {
		o.socket = r.ep.Path()
	}
	g.dev, err = client.Attach(testContext(t), o.socket)
	must(t, err)
	t.Cleanup(func() { g.dev.Close() })
	g.mem, err = client.NewMemory(64 << 20)
	must(t, err)
	t.Cleanup(func() { g.mem.Close() })
	if o.byMessage {
		must(t, g.dev.MapDMA(testContext(t), g.mem.At(1<<32).ByMessage()))
	}
	g.open(len(r.card.c.pairs))
	return g
}

// open begins with the device.
func (g *guest) open(pairs int) {
	t := g.t
	t.Helper()
	var err error
	g.d, err = driver.Open(testContext(t), g.dev, g.mem, driver.Options{Type: spec.DeviceType, ConfigChanged: g.o.config})
	must(t, err)
	t.Cleanup(func() { g.d.Close() })
	accept := g.d.Offered() & (g.o.features | virtio.FeatureVersion1) &^ g.o.without
	g.features = accept
	g.header = headerSize(accept)
	must(t, g.d.Negotiate(testContext(t), accept))
	queue := func(i, segments int) *driver.Queue {
		q, err := g.d.NewQueue(testContext(t), i, driver.QueueConfig{Size: g.o.size, Segments: segments, Interrupts: true})
		must(t, err)
		return q
	}
	if accept&(spec.FeatureMQ|spec.FeatureRSS) == 0 {
		pairs = 1
	}
	for i := range pairs {
		p := &guestPair{g: g, tx: queue(spec.TransmitQueue(i), 4), done: make([]driver.Used, 64)}
		if i == 0 || i != g.o.noReceive {
			p.rx = queue(spec.ReceiveQueue(i), 1)
		}
		p.rxBuf, err = g.mem.Alloc(uint64(g.o.buffers*g.o.buffer), 4096)
		must(t, err)
		p.txBuf, err = g.mem.Alloc(uint64(16*txSlot), 4096)
		must(t, err)
		for i := range 16 {
			p.txFree = append(p.txFree, uint32(i))
		}
		g.pairs = append(g.pairs, p)
	}
	if accept&spec.FeatureCtrlVQ != 0 {
		g.control = queue(spec.ControlQueue(accept, pairs), 4)
		g.buf, err = g.mem.Alloc(128<<10, 4096)
		must(t, err)
	}
	must(t, g.d.Ready(testContext(t)))
	for _, p := range g.pairs {
		if p.rx == nil {
			continue
		}
		for i := range g.o.buffers {
			must(t, p.rx.AddWritable(uint32(i), p.rxAddr(uint32(i)), uint32(g.o.buffer)))
		}
		must(t, p.rx.Kick())
	}
}

func (p *guestPair) rxAddr(token uint32) uint64 {
	return p.g.d.Addr(p.rxBuf) + uint64(token)*uint64(p.g.o.buffer)
}

// send transmits a frame, its chain cut into buffers of the given sizes, and returns when the
// card has used it.
func (p *guestPair) send(h vnet.Header, data []byte, cuts ...int) {
	p.g.t.Helper()
	p.post(h, data, cuts...)
	must(p.g.t, p.tx.Kick())
	p.reapAll()
}

// post adds a frame to the transmit queue.
func (p *guestPair) post(h vnet.Header, data []byte, cuts ...int) {
	p.g.t.Helper()
	var header [spec.HeaderSizeHash]byte
	h.Put(header[:], 0)
	p.postRaw(append(header[:p.g.header:p.g.header], data...), cuts...)
}

// postRaw adds a chain to the transmit queue.
func (p *guestPair) postRaw(b []byte, cuts ...int) {
	p.g.t.Helper()
	token := p.txFree[0]
	p.txFree = p.txFree[1:]
	at := uint64(token) * txSlot
	copy(p.txBuf.Bytes[at:], b)
	var segments []driver.Segment
	addr := p.g.d.Addr(p.txBuf) + at
	rest := len(b)
	for _, n := range append(cuts, rest) {
		if n = min(n, rest); n > 0 {
			segments = append(segments, driver.Segment{Addr: addr, Len: uint32(n)})
			addr += uint64(n)
			rest -= n
		}
	}
	must(p.g.t, p.tx.Add(token, segments, nil))
}

// reapAll waits until the card has used all that was transmitted.
func (p *guestPair) reapAll() {
	p.g.t.Helper()
	for p.tx.InFlight() > 0 {
		n, err := p.tx.Reap(p.done)
		must(p.g.t, err)
		for _, u := range p.done[:n] {
			p.txFree = append(p.txFree, u.Token)
		}
		if n == 0 {
			must(p.g.t, p.tx.Wait(testContext(p.g.t)))
		}
	}
}

// receive waits for n frames.
func (p *guestPair) receive(n int) []linktest.Frame {
	p.g.t.Helper()
	for len(p.got) < n {
		k := p.poll()
		if k == 0 {
			must(p.g.t, p.rx.Wait(testContext(p.g.t)))
		}
	}
	got := p.got[:n]
	p.got = p.got[n:]
	return got
}

// poll takes what was received, and gives the buffers again.
func (p *guestPair) poll() int {
	p.g.t.Helper()
	n, err := p.rx.Reap(p.done)
	must(p.g.t, err)
	for _, u := range p.done[:n] {
		b := p.rxBuf.Bytes[int(u.Token)*p.g.o.buffer:][:u.Len]
		p.take(b)
		must(p.g.t, p.rx.AddWritable(u.Token, p.rxAddr(u.Token), uint32(p.g.o.buffer)))
	}
	if n > 0 {
		must(p.g.t, p.rx.Kick())
	}
	return n
}

// take takes a used receive buffer.
func (p *guestPair) take(b []byte) {
	if p.more == 0 {
		if len(b) < p.g.header {
			p.g.t.Fatalf("a used buffer of %d bytes", len(b))
		}
		p.part = linktest.Frame{Queue: p.rx.Index() / 2}
		p.part.Header.Get(b)
		var report spec.HashReport
		if p.g.header == spec.HeaderSizeHash {
			report.Get(b[spec.HeaderSize:])
		}
		p.report = append(p.report, report)
		p.more = int(binary.LittleEndian.Uint16(b[10:]))
		p.merged = append(p.merged, p.more)
		b = b[p.g.header:]
	}
	p.part.Data = append(p.part.Data, b...)
	if p.more--; p.more == 0 {
		p.got = append(p.got, p.part)
	}
}

// command executes a command, and returns the answer.
func (g *guest) command(class, number uint8, data []byte, result int) (ack uint8, b []byte) {
	g.t.Helper()
	return g.rawCommand(append([]byte{class, number}, data...), 1+result)
}

// rawCommand gives the control queue a chain, and returns the last byte of the answer, which
// was 0xff before, and what precedes it.
func (g *guest) rawCommand(data []byte, writable int) (ack uint8, b []byte) {
	g.t.Helper()
	reply := g.buf.Bytes[100<<10:][:writable]
	copy(reply, bytes.Repeat([]byte{0xff}, writable))
	copy(g.buf.Bytes, data)
	var in, out []driver.Segment
	// Class and number are a buffer of their own, as Linux has it.
	if n := min(2, len(data)); n > 0 {
		in = append(in, driver.Segment{Addr: g.d.Addr(g.buf), Len: uint32(n)})
	}
	if len(data) > 2 {
		in = append(in, driver.Segment{Addr: g.d.Addr(g.buf) + 2, Len: uint32(len(data) - 2)})
	}
	if writable > 0 {
		out = append(out, driver.Segment{Addr: g.d.Addr(g.buf) + 100<<10, Len: uint32(writable)})
	}
	must(g.t, g.control.Add(7, in, out))
	must(g.t, g.control.Kick())
	done := make([]driver.Used, 1)
	for {
		n, err := g.control.Reap(done)
		must(g.t, err)
		if n == 1 {
			break
		}
		must(g.t, g.control.Wait(testContext(g.t)))
	}
	if writable == 0 {
		return 0xff, nil
	}
	return reply[writable-1], reply[:writable-1]
}
