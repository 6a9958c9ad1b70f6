package virtionet

import (
	"runtime"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

// spin sends the frames that were put into the slots of the transmit queue, without a call
// that allocates, and receives want frames for them, or more.
func (p *guestPair) spin(t testing.TB, slots, size, want int) {
	for i := range slots {
		if err := p.tx.AddReadable(uint32(i), p.g.d.Addr(p.txBuf)+uint64(i)*txSlot, uint32(size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.tx.Kick(); err != nil {
		t.Fatal(err)
	}
	for sent, got := 0, 0; sent < slots || got < want; {
		n, err := p.tx.Reap(p.done)
		if err != nil {
			t.Fatal(err)
		}
		sent += n
		if n, err = p.rx.Reap(p.done); err != nil {
			t.Fatal(err)
		}
		got += n
		for _, u := range p.done[:n] {
			if err := p.rx.AddWritable(u.Token, p.rxAddr(u.Token), uint32(p.g.o.buffer)); err != nil {
				t.Fatal(err)
			}
		}
		if n == 0 {
			runtime.Gosched() // AllocsPerRun leaves one processor
			continue
		}
		if err := p.rx.Kick(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsAllocatedForAFrame(t *testing.T) {
	const slots = 16
	mergeable := spec.FeatureMrgRxBuf | ring.FeatureEventIdx
	for _, c := range []struct {
		name     string
		features uint64
		buffer   int
		buffers  int
		pairs    int
		header   vnet.Header
		data     []byte
		receives int // buffers
		setup    func(g *guest)
	}{
		{"split", mergeable, 2048, 64, 1, vnet.Header{}, frameOf(1, 64), slots, nil},
		{"packed", mergeable | ring.FeatureRingPacked, 2048, 64, 1, vnet.Header{}, frameOf(1, 64), slots, nil},
		{"merged buffers", mergeable, 512, 64, 1, vnet.Header{}, frameOf(1, 1500), 3 * slots, nil},
		{"few buffers", mergeable, 2048, 4, 1, vnet.Header{}, frameOf(1, 1500), slots, nil},
		{"filters", all, 2048, 64, 1, vnet.Header{}, frameOf(1, 64), slots, func(g *guest) {
			g.ok(spec.ClassRx, spec.RxPromisc, []byte{0})
			m := mac(1)
			g.ok(spec.ClassMAC, spec.MACTableSet, (&spec.MACTable{Unicast: [][6]byte{m}}).Append(nil))
		}},
		{"RSS and hash report", all, 2048, 64, 2, vnet.Header{}, frameOf(1, 64), slots, func(g *guest) { g.rss(spec.HashAll, 0, 0) }},
		{"automatic steering", all &^ spec.FeatureRSS, 2048, 64, 2, vnet.Header{}, frameOf(1, 64), slots, func(g *guest) {
			g.ok(spec.ClassMQ, spec.MQPairsSet, le16(2))
		}},
		{"checksum in software", mergeable | spec.FeatureCSUM, 2048, 64, 1,
			vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16}, segments(1000), slots, nil},
		{"segmentation in software", mergeable | spec.FeatureCSUM | spec.FeatureHostTSO4, 2048, 64, 1, segmentHeader(1000), segments(4000), 4 * slots, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Config{Link: link.Loop(), Pairs: c.pairs, Doorbells: virtio.Mmap})
			g := r.attach(options{features: c.features, buffer: c.buffer, buffers: c.buffers})
			if c.setup != nil {
				c.setup(g)
			}
			p := g.pairs[0]
			chain := make([]byte, g.header, g.header+len(c.data))
			c.header.Put(chain[:12], 0)
			chain = append(chain, c.data...)
			for i := range slots {
				copy(p.txBuf.Bytes[i*txSlot:], chain)
			}
			p.done = make([]driver.Used, slots)
			p.spin(t, slots, len(chain), c.receives) // buffers that grow have grown
			if n := testing.AllocsPerRun(50, func() { p.spin(t, slots, len(chain), c.receives) }); n != 0 {
				t.Errorf("%v allocations for %d frames", n, slots)
			}
		})
	}
}
