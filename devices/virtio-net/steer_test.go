package virtionet

import (
	"fmt"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	virtio "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// rss configures receive-side scaling.
func (g *guest) rss(types uint32, unclassified uint16, table ...uint16) {
	g.t.Helper()
	c := spec.RSSConfig{HashTypes: types, Unclassified: unclassified, Table: table, MaxTx: 1, Key: microsoftKey}
	g.ok(spec.ClassMQ, spec.MQRSSConfig, c.Append(nil))
}

func TestReceiveSideScaling(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{Pairs: 4})
	g := r.attach(options{features: all})
	g.rss(spec.HashAll, 3, 0, 1, 2, 1)
	if _, pairs := r.link.Offloads(); pairs != 4 {
		t.Errorf("the link is told of %d pairs", pairs)
	}
	for i, c := range microsoftSums {
		data := packet{from: c.from, to: c.to, proto: protoTCP, payload: i}.frame()
		q := []int{0, 1, 2, 1}[c.ports%4]
		r.arrive(i%4, data)
		equal(t, g.pairs[q].receive(1), data)
		report := g.pairs[q].report[len(g.pairs[q].report)-1]
		if report.Value != c.ports || report.Report != spec.ReportTCPv4 && report.Report != spec.ReportTCPv6 {
			t.Errorf("%s to %s: %+v", c.from, c.to, report)
		}
	}
	arp := packet{kind: 0x806, payload: 46}.frame()
	r.arrive(0, arp)
	equal(t, g.pairs[3].receive(1), arp)
	if report := g.pairs[3].report[0]; report != (spec.HashReport{}) {
		t.Errorf("%+v", report)
	}
	// All to one queue.
	g.rss(0, 2, 1)
	r.arrive(0, arp)
	equal(t, g.pairs[2].receive(1), arp)
}

// Answers to a flow come on the pair on which it was sent, those that nobody sent on the one
// that the link names.
func TestAutomaticSteering(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{Pairs: 4})
	g := r.attach(options{features: all, without: spec.FeatureRSS})
	g.ok(spec.ClassMQ, spec.MQPairsSet, le16(4))
	if _, pairs := r.link.Offloads(); pairs != 4 {
		t.Errorf("the link is told of %d pairs", pairs)
	}
	const a4, b4, a6, b6 = "10.0.0.1:1000", "10.0.0.2:2000", "[2001:db8::1]:1000", "[2001:db8::2]:2000"
	for pair := range 4 {
		for _, c := range [][2]string{{a4, b4}, {a6, b6}} {
			for _, proto := range []uint8{protoTCP, protoUDP} {
				g.pairs[pair].send(vnet.Header{}, packet{from: c[0], to: c[1], proto: proto}.frame())
				answer := packet{from: c[1], to: c[0], proto: proto, payload: pair}.frame()
				r.arrive((pair+1)%4, answer)
				equal(t, g.pairs[pair].receive(1), answer)
			}
		}
	}
	unknown := packet{from: "10.9.9.9:1", to: "10.8.8.8:2", proto: protoUDP}.frame()
	r.arrive(2, unknown)
	equal(t, g.pairs[2].receive(1), unknown)
	// With one pair everything goes there.
	g.ok(spec.ClassMQ, spec.MQPairsSet, le16(1))
	r.arrive(3, unknown)
	equal(t, g.pairs[0].receive(1), unknown)
}

// Frames for a queue that is being reset, or is not there, go to another one; with RSS they
// are dropped.
func TestSteeringAroundAQueueThatIsNotThere(t *testing.T) {
	r := newRig(t, Config{Pairs: 3})
	g := r.attach(options{features: all, noReceive: 2})
	g.ok(spec.ClassMQ, spec.MQPairsSet, le16(3))
	data := frameOf(1, 100)
	g.pairs[2].send(vnet.Header{}, data)
	for q, want := range []int{0, 1, 0} {
		other := packet{kind: 0x806, payload: 46 + q}.frame()
		r.arrive(q, other)
		equal(t, g.pairs[want].receive(1), other)
	}
	r.arrive(1, data) // of the flow of pair 2
	equal(t, g.pairs[0].receive(1), data)
	g.rss(spec.HashAll, 1, 2)
	arp := packet{kind: 0x806, payload: 46}.frame()
	r.arrive(0, data, arp)
	equal(t, g.pairs[1].receive(1), arp)
	if n := r.card.Stats()[2].Receive.NoDriver; n != 1 {
		t.Errorf("%d frames were dropped", n)
	}
}

// What is enabled beyond the queues that there are with the features does nothing.
func TestQueuesThatDoNotExist(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{Pairs: 4})
	g := r.attach(options{features: spec.FeatureCtrlVQ | spec.FeatureCtrlRx})
	g.ok(spec.ClassRx, spec.RxPromisc, []byte{1})
	g.d.Close()
	d, err := driver.Open(testContext(t), g.dev, g.mem, driver.Options{})
	must(t, err)
	must(t, d.Negotiate(testContext(t), virtio.FeatureVersion1))
	var queues []*driver.Queue
	for i := range 9 {
		q, err := d.NewQueue(testContext(t), i, driver.QueueConfig{Size: 64})
		must(t, err)
		queues = append(queues, q)
	}
	must(t, d.Ready(testContext(t)))
	for _, q := range queues {
		must(t, q.AddReadable(1, g.d.Addr(g.buf), 64))
		must(t, q.Kick())
	}
	eventually(t, "a frame from the last pair", func() bool { return r.card.Stats()[3].Transmit.Frames == 1 })
	must(t, d.Close())
	if err := g.dev.Err(); err != nil {
		t.Error(err)
	}
}

// The order of frames for one queue is kept when a batch goes to several.
func TestBatchForSeveralQueues(t *testing.T) {
	r := newRig(t, Config{Pairs: 4})
	g := r.attach(options{features: all})
	g.rss(spec.HashUDPv4, 3, 0, 1, 2, 3)
	h := hashing{types: spec.HashUDPv4, table: newToeplitz(microsoftKey)}
	var batches [][]byte
	want := make([][][]byte, 4)
	for i := range 200 {
		data := packet{from: fmt.Sprintf("10.0.0.1:%d", 1+i*i%7), to: "10.0.0.2:2", proto: protoUDP, payload: i}.frame()
		var f flow
		f.parse(headOf(data))
		q := h.sum(&f).Value % 4
		if i%50 == 49 {
			data, q = packet{kind: 0x806, payload: i}.frame(), 3
		}
		want[q] = append(want[q], data)
		batches = append(batches, data)
	}
	if n := r.link.Card().Receive(0, linktest.Frames(batches...)); n != len(batches) {
		t.Errorf("%d taken", n)
	}
	for q := range want {
		equal(t, g.pairs[q].receive(len(want[q])), want[q]...)
	}
}

// Queues come and go while frames flow, as with ethtool -L.
func TestPairsChangeUnderTraffic(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, byMessage := range []bool{false, true} {
		r := newRig(t, Config{Pairs: 4})
		g := r.attach(options{features: all, byMessage: byMessage})
		stop := r.flood()
		for i := range 30 {
			if n := uint16(i%4 + 1); i%3 == 0 {
				g.rss(spec.HashAll, 0, []uint16{0, n - 1}...)
			} else {
				g.ok(spec.ClassMQ, spec.MQPairsSet, le16(n))
			}
			for _, p := range g.pairs {
				for p.poll() > 0 {
				}
				p.got = nil
			}
		}
		// Where nothing may go, nothing goes.
		g.ok(spec.ClassMQ, spec.MQPairsSet, le16(1))
		for _, p := range g.pairs[1:] {
			for p.poll() > 0 {
			}
			if n := p.poll(); n != 0 {
				t.Errorf("%d frames for a queue that is not in use", n)
			}
		}
		stop()
		g.d.Close()
	}
}
