package virtionet

import (
	"errors"
	"fmt"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/dma"
	driver "vfiouser/drivers/virtio"
	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// raw is a queue whose ring a test writes by hand.
type raw struct {
	g            *guest
	q            *driver.Queue
	desc, avail  []byte
	table        client.Chunk // room for an indirect table, and for buffers behind it
	tableAddress uint64
}

func (g *guest) raw(q *driver.Queue) *raw {
	g.t.Helper()
	w := &raw{g: g, q: q}
	base := g.d.Addr(client.Chunk{})
	desc, avail, _ := q.Addresses()
	w.desc, w.avail = g.mem.Bytes()[desc-base:], g.mem.Bytes()[avail-base:]
	var err error
	w.table, err = g.mem.Alloc(8192, 4096)
	must(g.t, err)
	w.tableAddress = g.d.Addr(w.table)
	return w
}

// put writes descriptors of a split queue from the first on.
func (w *raw) put(list ...ring.Desc) {
	for i := range list {
		list[i].Put(w.desc[ring.DescSize*i:])
	}
}

// indirect writes an indirect table, and a descriptor that refers to n bytes of it.
func (w *raw) indirect(n uint32, flags uint16, list ...ring.Desc) {
	for i := range list {
		list[i].Put(w.table.Bytes[ring.DescSize*i:])
	}
	w.put(ring.Desc{Addr: w.tableAddress, Len: n, Flags: ring.DescIndirect | flags})
}

// offer makes n chains available, each with this head, and notifies the card.
func (w *raw) offer(head uint16, n int) {
	w.g.t.Helper()
	at := dma.Load16(w.avail, ring.AvailIndex)
	for i := range min(n, w.q.Size()) {
		dma.StoreRelease16(w.avail, ring.AvailRing+ring.AvailEntrySize*(int(at+uint16(i))%w.q.Size()), head)
	}
	dma.Store16(w.avail, ring.AvailIndex, at+uint16(n))
}

// Each of these costs the guest that does it its device, until it resets it, and nobody else
// anything.
func TestMaliciousRings(t *testing.T) {
	const outside = 1 << 50
	for _, c := range []struct {
		name     string
		features uint64
		do       func(w *raw)
	}{
		{"loop", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext, Next: 1}, ring.Desc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext})
			w.offer(0, 1)
		}},
		{"next outside of the table", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext, Next: 64})
			w.offer(0, 1)
		}},
		{"head outside of the table", 0, func(w *raw) { w.offer(64, 1) }},
		{"index that jumps", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.tableAddress, Len: 64})
			w.offer(0, 65)
		}},
		{"index that goes back", 0, func(w *raw) { w.offer(0, 0xffff) }},
		{"address outside of memory", 0, func(w *raw) {
			w.put(ring.Desc{Addr: outside, Len: 64})
			w.offer(0, 1)
		}},
		{"end outside of memory", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.g.d.Addr(client.Chunk{Offset: w.g.mem.Size() - 64}), Len: 65})
			w.offer(0, 1)
		}},
		{"length that overflows", 0, func(w *raw) {
			w.put(ring.Desc{Addr: ^uint64(0) - 10, Len: 64})
			w.offer(0, 1)
		}},
		{"4 GiB in a chain", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.tableAddress, Len: 0xffffffff, Flags: ring.DescNext, Next: 1}, ring.Desc{Addr: w.tableAddress, Len: 64})
			w.offer(0, 1)
		}},
		{"to be read after to be written", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext | ring.DescWrite, Next: 1}, ring.Desc{Addr: w.tableAddress, Len: 64})
			w.offer(0, 1)
		}},
		{"indirect, not negotiated", 0, func(w *raw) {
			w.indirect(16, 0, ring.Desc{Addr: w.tableAddress, Len: 64})
			w.offer(0, 1)
		}},
		{"indirect inside indirect", ring.FeatureIndirectDesc, func(w *raw) {
			w.indirect(16, 0, ring.Desc{Addr: w.tableAddress, Len: 16, Flags: ring.DescIndirect})
			w.offer(0, 1)
		}},
		{"indirect and chained", ring.FeatureIndirectDesc, func(w *raw) {
			w.indirect(16, ring.DescNext, ring.Desc{Addr: w.tableAddress, Len: 64})
			w.offer(0, 1)
		}},
		{"empty table", ring.FeatureIndirectDesc, func(w *raw) {
			w.indirect(0, 0)
			w.offer(0, 1)
		}},
		{"half a table", ring.FeatureIndirectDesc, func(w *raw) {
			w.indirect(17, 0, ring.Desc{Addr: w.tableAddress, Len: 64})
			w.offer(0, 1)
		}},
		{"loop in a table", ring.FeatureIndirectDesc, func(w *raw) {
			w.indirect(32, 0, ring.Desc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext, Next: 1},
				ring.Desc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext, Next: 0})
			w.offer(0, 1)
		}},
		{"table outside of memory", ring.FeatureIndirectDesc, func(w *raw) {
			w.put(ring.Desc{Addr: outside, Len: 16, Flags: ring.DescIndirect})
			w.offer(0, 1)
		}},
		{"packed, without an end", ring.FeatureRingPacked, func(w *raw) {
			for i := range w.q.Size() {
				d := ring.PackedDesc{Addr: w.tableAddress, Len: 64, Flags: ring.DescNext | ring.PackedAvail(true)}
				d.Put(w.desc[ring.DescSize*i:])
			}
		}},
		{"packed, address outside of memory", ring.FeatureRingPacked, func(w *raw) {
			d := ring.PackedDesc{Addr: outside, Len: 64, Flags: ring.PackedAvail(true)}
			d.Put(w.desc)
		}},
		{"packed, half a table", ring.FeatureRingPacked | ring.FeatureIndirectDesc, func(w *raw) {
			d := ring.PackedDesc{Addr: w.tableAddress, Len: 17, Flags: ring.DescIndirect | ring.PackedAvail(true)}
			d.Put(w.desc)
		}},
		{"no room for a header", 0, func(w *raw) {
			w.put(ring.Desc{Addr: w.tableAddress, Len: 11})
			w.offer(0, 1)
		}},
	} {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", c.name, byMessage), func(t *testing.T) {
				holdings.CheckLeaks(t)
				eng, err := engine.New(engine.Config{Workers: 1})
				must(t, err)
				t.Cleanup(func() { eng.Close() })
				healthy := newRigOn(t, eng, Config{Link: link.Loop()}).attach(options{features: all})
				broken := make(chan struct{}, 8)
				r := newRigOn(t, eng, Config{})
				bad := r.attach(options{features: c.features, byMessage: byMessage, config: func(*driver.Device) { broken <- struct{}{} }})
				c.do(bad.raw(bad.pairs[0].tx))
				r.link.Card().Wake(0) // as a notification does
				select {
				case <-broken:
				case <-testContext(t).Done():
					t.Fatal("nothing happens")
				}
				if err := bad.d.Err(); !errors.Is(err, driver.ErrNeedsReset) {
					t.Error(err)
				}
				data := frameOf(1, 200)
				healthy.pairs[0].send(vnet.Header{}, data)
				equal(t, healthy.pairs[0].receive(1), data)
				bad.d.Close()
				bad.pairs = nil
				bad.open(1)
				bad.pairs[0].send(vnet.Header{}, data)
				equal(t, r.link.Sent(), data)
			})
		}
	}
}

// A receive buffer that is none breaks the queue when a frame is to go there.
func TestMaliciousReceiveBuffers(t *testing.T) {
	for _, c := range []struct {
		name string
		put  func(w *raw) ring.Desc
	}{
		{"outside of memory", func(*raw) ring.Desc { return ring.Desc{Addr: 1 << 50, Len: 2048, Flags: ring.DescWrite} }},
		{"shorter than a header", func(w *raw) ring.Desc {
			return ring.Desc{Addr: w.tableAddress, Len: spec.HeaderSize - 1, Flags: ring.DescWrite}
		}},
		{"to be read", func(w *raw) ring.Desc { return ring.Desc{Addr: w.tableAddress, Len: 2048} }},
		{"of many descriptors and few bytes", func(w *raw) ring.Desc {
			const n = 512
			for i := range n {
				d := ring.Desc{Flags: ring.DescWrite | ring.DescNext, Next: uint16(i + 1)}
				if i == n-1 {
					d = ring.Desc{Addr: w.tableAddress, Len: spec.HeaderSize, Flags: ring.DescWrite}
				}
				d.Put(w.table.Bytes[ring.DescSize*i:])
			}
			return ring.Desc{Addr: w.tableAddress, Len: n * ring.DescSize, Flags: ring.DescIndirect}
		}},
	} {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", c.name, byMessage), func(t *testing.T) {
				holdings.CheckLeaks(t)
				broken := make(chan struct{}, 8)
				r := newRig(t, Config{})
				g := r.attach(options{features: spec.FeatureMrgRxBuf | ring.FeatureIndirectDesc, buffers: 4, byMessage: byMessage,
					config: func(*driver.Device) { broken <- struct{}{} }})
				w := g.raw(g.pairs[0].rx)
				d := c.put(w)
				d.Put(w.desc[ring.DescSize*63:])
				w.offer(63, 20)
				for i := range 5 {
					r.arrive(0, frameOf(i, 400))
				}
				<-broken
				if err := g.d.Err(); !errors.Is(err, driver.ErrNeedsReset) {
					t.Error(err)
				}
				eventually(t, "frames for the good buffers", func() bool { return r.card.Stats()[0].Receive.Frames >= 4 })
			})
		}
	}
}
