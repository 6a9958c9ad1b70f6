package virtionet

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	ring "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

const (
	goneIOVA = 1 << 40
	goneSize = 1 << 20
)

// fleeting is memory of a guest that it can truncate.
type fleeting struct {
	g  *guest
	fd int
}

// share maps such memory to the card.
func (g *guest) share() *fleeting {
	g.t.Helper()
	fd, err := unix.MemfdCreate("virtio-net-test", unix.MFD_CLOEXEC)
	must(g.t, err)
	g.t.Cleanup(func() { unix.Close(fd) })
	must(g.t, unix.Ftruncate(fd, goneSize))
	must(g.t, g.dev.MapDMA(testContext(g.t), client.Mapping{IOVA: goneIOVA, Size: goneSize, FD: fd}))
	return &fleeting{g, fd}
}

func (f *fleeting) truncate() {
	f.g.t.Helper()
	must(f.g.t, unix.Ftruncate(f.fd, 0))
}

// sendHalf sends a frame of which the addresses are there and the rest is in such memory.
func (g *guest) sendHalf(frame []byte) {
	g.t.Helper()
	p := g.pairs[0]
	copy(p.txBuf.Bytes[g.header:], frame[:etherSize])
	must(g.t, p.tx.Add(1, []driver.Segment{{Addr: g.d.Addr(p.txBuf), Len: uint32(g.header + etherSize)}, {Addr: goneIOVA, Len: 500}}, nil))
	g.kickGone(p.tx)
}

// kickGone is Kick for what costs the guest its session, which a worker that is awake may have
// seen before.
func (g *guest) kickGone(q *driver.Queue) {
	g.t.Helper()
	if err := q.Kick(); g.dev.Err() == nil {
		must(g.t, err)
	}
}

// lost waits until the guest's session has ended.
func (g *guest) lost() {
	g.t.Helper()
	select {
	case <-g.dev.Done():
	case <-testContext(g.t).Done():
		g.t.Fatal("the session goes on")
	}
}

// Three guests on a switch. The one that truncates its memory loses its session, be it that it
// sends or receives at that time, and nobody else does.
func TestTruncatedMemoryCostsItsOwnerOnly(t *testing.T) {
	for _, c := range []struct {
		name    string
		receive bool // the guest receives
		merged  bool
	}{{"sender", false, false}, {"receiver", true, false}, {"receiver, merged buffers", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			sw := link.NewSwitch(link.SwitchConfig{})
			eng, err := engine.New(engine.Config{Workers: 1})
			must(t, err)
			t.Cleanup(func() { eng.Close() })
			var guests [3]*guest
			for i := range guests {
				m := mac(byte(i + 1))
				o := options{features: all, buffers: 8}
				if c.merged && i == 0 {
					o.buffer = 256
				}
				guests[i] = newRigOn(t, eng, Config{Link: sw, MAC: m[:]}).attach(o)
				// The switch learns who is where.
				guests[i].pairs[0].send(vnet.Header{}, packet{dst: string(broadcast[:]), src: string(m[:]), payload: 46}.frame())
			}
			bad := guests[0]
			memory := bad.share()
			between := func(from, to int) []byte {
				dst, src := mac(byte(to+1)), mac(byte(from+1))
				return packet{dst: string(dst[:]), src: string(src[:]), payload: 400}.frame()
			}
			if c.receive {
				p := bad.pairs[0]
				for i := range 8 {
					must(t, p.rx.AddWritable(uint32(100+i), goneIOVA+uint64(i)*4096, uint32(bad.o.buffer)))
				}
				must(t, p.rx.Kick())
				memory.truncate()
				for range 16 {
					guests[1].pairs[0].send(vnet.Header{}, between(1, 0))
				}
			} else {
				memory.truncate()
				must(t, bad.pairs[0].tx.AddReadable(1, goneIOVA, 100))
				bad.kickGone(bad.pairs[0].tx)
			}
			bad.lost()
			for i := range 16 {
				from, to := 1+i%2, 2-i%2
				data := between(from, to)
				guests[from].pairs[0].send(vnet.Header{}, data)
				for got := guests[to].pairs[0].receive(1); got[0].Data[5] != data[5]; {
					got = guests[to].pairs[0].receive(1) // the broadcasts
				}
			}
		})
	}
}

// A sender's memory that goes while a receiver's card copies from it: the receiver goes on,
// with all of its buffers.
func TestSendersMemoryGoesInTheReceiversHands(t *testing.T) {
	for _, byMessage := range []bool{false, true} {
		t.Run(fmt.Sprint(byMessage), func(t *testing.T) { sendersMemoryGoes(t, byMessage) })
	}
}

func sendersMemoryGoes(t *testing.T, byMessage bool) {
	holdings.CheckLeaks(t)
	sw := link.NewSwitch(link.SwitchConfig{})
	eng, err := engine.New(engine.Config{Workers: 1})
	must(t, err)
	t.Cleanup(func() { eng.Close() })
	a, b := mac(1), mac(2)
	other := mac(3)
	receiver := newRigOn(t, eng, Config{Link: sw, MAC: b[:]}).attach(options{features: all, buffers: 4, byMessage: byMessage})
	receiver.pairs[0].send(vnet.Header{}, packet{dst: string(broadcast[:]), src: string(b[:]), payload: 46}.frame())
	third := newRigOn(t, eng, Config{Link: sw, MAC: other[:]}).attach(options{features: all})
	for range 5 {
		r := newRigOn(t, eng, Config{Link: sw, MAC: a[:]})
		g := r.attach(options{features: all})
		memory := g.share()
		memory.truncate()
		g.sendHalf(packet{dst: string(b[:]), src: string(a[:])}.frame())
		g.lost()
	}
	var want [][]byte
	for i := range 4 {
		want = append(want, packet{dst: string(b[:]), src: string(other[:]), payload: 50 + i}.frame())
		third.pairs[0].send(vnet.Header{}, want[i])
	}
	equal(t, receiver.pairs[0].receive(4), want...)
}

// A ring that has gone by the time when its queue starts leaves nothing behind that a frame
// could stumble on, which comes before the session ends.
func TestRingGoneWhenItsQueueStarts(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	frames := linktest.Frames(frameOf(1, 60))
	for range 20 {
		dev, err := client.Attach(testContext(t), r.ep.Path())
		must(t, err)
		g := &guest{t: t, dev: dev}
		memory := g.share()
		set := func(off uint64, size int, v uint64) {
			must(t, dev.WriteRegion(testContext(t), 0, off, binary.LittleEndian.AppendUint64(nil, v)[:size]))
		}
		status := ring.StatusAcknowledge | ring.StatusDriver
		set(ring.DeviceStatus, 1, uint64(status))
		set(ring.DriverFeatureSelect, 4, 1)
		set(ring.DriverFeature, 4, ring.FeatureVersion1>>32)
		status |= ring.StatusFeaturesOK
		set(ring.DeviceStatus, 1, uint64(status))
		for i := range uint64(2) {
			at := goneIOVA + i*64<<10
			set(ring.QueueSelect, 2, i)
			set(ring.QueueSize, 2, 64)
			set(ring.QueueDesc, 8, at)
			set(ring.QueueDriver, 8, at+4096)
			set(ring.QueueDevice, 8, at+8192)
			set(ring.QueueEnable, 2, 1)
		}
		memory.truncate()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for dev.Err() == nil {
				r.link.Card().Receive(0, frames)
			}
		}()
		_ = dev.PostRegion(testContext(t), 0, ring.DeviceStatus, []byte{byte(status | ring.StatusDriverOK)})
		g.lost()
		<-done
		dev.Close()
	}
}
