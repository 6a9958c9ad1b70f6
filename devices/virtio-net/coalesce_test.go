package virtionet

import (
	"runtime"
	"testing"
	"time"

	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// coalesce is the data of a command for a kind of queue.
func coalesce(frames int, d time.Duration) []byte {
	var b [spec.CoalesceSize]byte
	c := spec.Coalesce{MaxPackets: uint32(frames), MaxUsecs: uint32(d.Microseconds())}
	c.Put(b[:])
	return b[:]
}

func TestCoalescedInterrupts(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, byMessage := range []bool{false, true} {
		r := newRig(t, Config{})
		g := r.attach(options{features: all &^ ring.FeatureEventIdx, byMessage: byMessage})
		p := g.pairs[0]
		p.rx.EnableInterrupts() // all of them
		received := func(frames int) uint64 {
			t.Helper()
			for i := range frames {
				r.arrive(0, frameOf(i, 60))
			}
			for got := 0; got < frames; {
				n, err := p.rx.Reap(p.done)
				must(t, err)
				got += n
				for _, u := range p.done[:n] {
					must(t, p.rx.AddWritable(u.Token, p.rxAddr(u.Token), uint32(g.o.buffer)))
				}
				must(t, p.rx.Kick())
				runtime.Gosched()
			}
			return r.card.Stats()[0].Receive.Interrupts
		}
		interrupts := func(n uint64) {
			t.Helper()
			eventually(t, "an interrupt", func() bool { return r.card.Stats()[0].Receive.Interrupts == n })
		}
		received(1)
		interrupts(1)
		// By number.
		g.ok(spec.ClassNotfCoal, spec.CoalRxSet, coalesce(4, time.Hour))
		if n := received(3); n != 1 {
			t.Errorf("%d interrupts after 3 frames of 4", n)
		}
		received(1)
		interrupts(2)
		// By time.
		g.ok(spec.ClassNotfCoal, spec.CoalRxSet, coalesce(1000, time.Millisecond))
		received(1)
		interrupts(3)
		// What is changed takes effect on what waits.
		g.ok(spec.ClassNotfCoal, spec.CoalRxSet, coalesce(15, time.Hour))
		if n := received(10); n != 3 {
			t.Errorf("%d interrupts after 10 frames of 15", n)
		}
		g.ok(spec.ClassNotfCoal, spec.CoalRxSet, coalesce(8, time.Hour))
		interrupts(4)
		// One queue.
		vq := func(queue uint16) []byte {
			return append(append(le16(queue), 0, 0), coalesce(2, time.Hour)...)
		}
		g.ok(spec.ClassNotfCoal, spec.CoalVQSet, vq(1))
		ack, b := g.command(spec.ClassNotfCoal, spec.CoalVQGet, vq(1)[:4], spec.CoalesceSize)
		var got spec.Coalesce
		got.Get(b)
		if ack != spec.AckOK || got.MaxPackets != 2 || got.MaxUsecs != 3600e6 {
			t.Errorf("%d: %+v", ack, got)
		}
		if ack, _ = g.command(spec.ClassNotfCoal, spec.CoalVQGet, le16(2), spec.CoalesceSize); ack != spec.AckErr {
			t.Errorf("a command cut short: %d", ack)
		}
		p.tx.EnableInterrupts()
		for range 2 {
			p.post(vnet.Header{}, frameOf(1, 60))
			must(t, p.tx.Kick())
		}
		p.reapAll()
		eventually(t, "an interrupt", func() bool { return r.card.Stats()[0].Transmit.Interrupts == 1 })
		g.d.Close()
	}
}

// A queue that is reset begins with what holds for all.
func TestCoalescingOfANewQueue(t *testing.T) {
	r := newRig(t, Config{})
	g := r.attach(options{features: all})
	p := g.pairs[0]
	get := func() (c spec.Coalesce) {
		t.Helper()
		_, b := g.command(spec.ClassNotfCoal, spec.CoalVQGet, []byte{1, 0, 0, 0}, spec.CoalesceSize)
		c.Get(b)
		return c
	}
	p.send(vnet.Header{}, frameOf(1, 60))
	g.ok(spec.ClassNotfCoal, spec.CoalVQSet, append([]byte{1, 0, 0, 0}, coalesce(5, time.Hour)...))
	must(t, p.tx.Reset(testContext(t)))
	p.send(vnet.Header{}, frameOf(1, 60))
	if c := get(); c != (spec.Coalesce{}) {
		t.Errorf("%+v", c)
	}
	g.ok(spec.ClassNotfCoal, spec.CoalTxSet, coalesce(7, time.Microsecond))
	g.ok(spec.ClassNotfCoal, spec.CoalVQSet, append([]byte{1, 0, 0, 0}, coalesce(5, time.Hour)...))
	must(t, p.tx.Reset(testContext(t)))
	p.send(vnet.Header{}, frameOf(1, 60))
	if c := get(); c.MaxPackets != 7 || c.MaxUsecs != 1 {
		t.Errorf("%+v", c)
	}
}
