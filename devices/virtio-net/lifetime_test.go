package virtionet

import (
	"bytes"
	"fmt"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// flood has frames arrive on all queues until the function that it returns is called. They
// are offered again and again, so that nothing grows.
func (r *rig) flood() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var frames [][]byte
		for i := range 64 {
			frames = append(frames, packet{from: fmt.Sprintf("10.0.0.1:%d", 1+i), to: "10.0.0.2:2", proto: protoUDP, payload: 20 * i}.frame())
		}
		for q := 0; ; q++ {
			select {
			case <-quit:
				return
			default:
				r.link.Card().Receive(q%len(r.card.c.pairs), linktest.Frames(frames...))
			}
		}
	}()
	return func() { close(quit); <-done }
}

// The driver goes and comes back, as when it is unbound and bound again, while frames arrive.
func TestDriverComesAndGoesUnderTraffic(t *testing.T) {
	holdings.CheckLeaks(t)
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	for _, byMessage := range []bool{false, true} {
		r := newRig(t, Config{Pairs: 2})
		g := r.attach(options{features: all, byMessage: byMessage})
		stop := r.flood()
		for i := range rounds {
			p := g.pairs[0]
			if i%5 == 0 {
				g.ok(spec.ClassMQ, spec.MQPairsSet, le16(2))
			}
			p.send(vnet.Header{}, frameOf(i, 100))
			p.receive(70)
			must(t, g.d.Close())
			for _, p := range g.pairs {
				g.mem.Free(p.rxBuf)
				g.mem.Free(p.txBuf)
			}
			g.mem.Free(g.buf)
			g.pairs = nil
			g.open(2)
		}
		stop()
		must(t, g.d.Close())
		g.dev.Close()
	}
}

// The same for the client: the next one finds a card in order.
func TestClientsComeAndGoUnderTraffic(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	stop := r.flood()
	for i := range 10 {
		g := r.attach(options{features: all, byMessage: i%2 == 1})
		g.pairs[0].send(vnet.Header{}, frameOf(i, 100))
		g.pairs[0].receive(70)
		g.dev.Close() // without a word to the card
		<-g.dev.Done()
	}
	stop()
}

// slowLink is one that takes its time to hear that there is no driver any more.
type slowLink struct {
	link.Link
	hold chan struct{}
}

type slowPort struct {
	link.Port
	hold chan struct{}
}

func (l *slowLink) Attach(c link.Card) (link.Port, error) {
	p, err := l.Link.Attach(c)
	return &slowPort{p, l.hold}, err
}

func (p *slowPort) SetOffloads(o vnet.Offloads, pairs int) {
	if pairs == 0 {
		<-p.hold
	}
	p.Port.SetOffloads(o, pairs)
}

// The address that a driver has set is its own: the next client finds the card's, even before
// all of the last one is cleared away.
func TestNextClientFindsTheAddressOfTheCard(t *testing.T) {
	holdings.CheckLeaks(t)
	l := &slowLink{link.Loop(), make(chan struct{})}
	r := newRig(t, Config{Link: l})
	t.Cleanup(func() { close(l.hold) })
	g := r.attach(options{features: all})
	other := mac(77)
	g.ok(spec.ClassMAC, spec.MACAddrSet, other[:])
	g.dev.Close()
	next, err := client.Attach(testContext(t), r.ep.Path())
	must(t, err)
	t.Cleanup(func() { next.Close() })
	const deviceConfig = 0x2000 // in BAR0
	var got [6]byte
	must(t, next.ReadRegion(testContext(t), client.RegionBAR0, deviceConfig, got[:]))
	if want := r.card.MAC(); !bytes.Equal(got[:], want) {
		t.Errorf("% x, want %v", got, want)
	}
}

// Queues are reset one by one while frames flow.
func TestQueuesAreResetUnderTraffic(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	g := r.attach(options{features: all})
	p := g.pairs[0]
	stop := r.flood()
	for i := range 20 {
		p.send(vnet.Header{}, frameOf(i, 100))
		p.receive(70)
		must(t, p.rx.Reset(testContext(t)))
		p.more, p.got, p.part = 0, nil, linktest.Frame{}
		for i := range g.o.buffers {
			must(t, p.rx.AddWritable(uint32(i), p.rxAddr(uint32(i)), uint32(g.o.buffer)))
		}
		must(t, p.rx.Kick())
		must(t, p.tx.Reset(testContext(t)))
	}
	stop()
}

// What waits for a queue that the driver does not use any more is not delivered there.
func TestNothingComesToAQueueOutOfUse(t *testing.T) {
	for _, byMessage := range []bool{false, true} {
		r := newRig(t, Config{Pairs: 2})
		g := r.attach(options{features: all, buffers: 4, byMessage: byMessage})
		g.ok(spec.ClassMQ, spec.MQPairsSet, le16(2))
		p := g.pairs[1]
		for i := range 10 {
			r.arrive(1, frameOf(i, 100))
		}
		eventually(t, "all buffers are used", func() bool { return r.card.Stats()[1].Receive.Frames == 4 })
		g.ok(spec.ClassMQ, spec.MQPairsSet, le16(1))
		p.receive(4)
		eventually(t, "frames are discarded", func() bool { return r.card.Stats()[1].Receive.NoBuffer == 6 })
		if got := r.card.Stats()[1].Receive; p.poll() != 0 || got.Frames != 4 {
			t.Errorf("%+v", got)
		}
		g.ok(spec.ClassMQ, spec.MQPairsSet, le16(2))
		data := frameOf(1, 100)
		r.arrive(1, data)
		equal(t, p.receive(1), data)
	}
}

// A pair that is not served by message any more goes on with what waited.
func TestFramesThatWaitedGoOnWithTheWorker(t *testing.T) {
	for _, buffers := range []int{64, 1} {
		r := newRig(t, Config{})
		g := r.attach(options{features: all, buffers: buffers})
		// A command comes after all queues were started, and what it does is seen here.
		m := mac(1)
		g.ok(spec.ClassMAC, spec.MACAddrSet, m[:])
		r.card.c.ReadConfig(0, make([]byte, spec.ConfigSize))
		p := r.card.c.pairs[0]
		p.pause()
		p.rx.place(true) // as if it had been
		var want [][]byte
		for i := range 40 {
			want = append(want, frameOf(i, 100))
			r.link.Card().Receive(0, linktest.Frames(want[i]))
		}
		p.resume()
		want = append(want, frameOf(40, 100))
		r.link.Card().Receive(0, linktest.Frames(want[40]))
		equal(t, g.pairs[0].receive(len(want)), want...)
	}
}
