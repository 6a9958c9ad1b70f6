package virtionet

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	virtio "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// Headers that lie about their frame cost the frame, not the queue.
func TestHeadersThatLie(t *testing.T) {
	const everything = spec.FeatureCSUM | spec.FeatureHostTSO4 | spec.FeatureHostTSO6 | spec.FeatureHostECN | spec.FeatureHostUSO
	good := segmentHeader(1000)
	for _, c := range []struct {
		name     string
		features uint64
		change   func(*vnet.Header)
		size     int
		reason   vnet.Reason
	}{
		{"segments", everything, func(*vnet.Header) {}, 3000, vnet.ReasonNone},
		{"unknown flags are ignored", everything, func(h *vnet.Header) { h.Flags |= 0xf0 }, 3000, vnet.ReasonNone},
		{"segments, not negotiated", spec.FeatureCSUM, func(*vnet.Header) {}, 3000, vnet.ReasonKind},
		{"other segments are negotiated", spec.FeatureCSUM | spec.FeatureHostTSO6, func(*vnet.Header) {}, 3000, vnet.ReasonKind},
		{"ECN, not negotiated", everything &^ spec.FeatureHostECN, func(h *vnet.Header) { h.GSOType |= vnet.GSOECN }, 3000, vnet.ReasonKind},
		{"UDP segments, not negotiated", everything &^ spec.FeatureHostUSO, func(h *vnet.Header) { h.GSOType = vnet.GSOUDPL4 }, 3000, vnet.ReasonKind},
		{"UDP fragments", everything, func(h *vnet.Header) { h.GSOType = 3 }, 3000, vnet.ReasonKind},
		{"unknown kind", everything, func(h *vnet.Header) { h.GSOType = 77 }, 3000, vnet.ReasonKind},
		{"checksum, not negotiated", 0, func(h *vnet.Header) { h.GSOType = 0 }, 3000, vnet.ReasonKind},
		{"segments of 0 bytes", everything, func(h *vnet.Header) { h.GSOSize = 0 }, 3000, vnet.ReasonSize},
		{"segments without checksum", everything, func(h *vnet.Header) { h.Flags = 0 }, 3000, vnet.ReasonNoChecksum},
		{"sum behind the frame", everything, func(h *vnet.Header) { h.ChecksumStart = 3000 }, 3000, vnet.ReasonChecksumRange},
		{"sum at the end of the frame", everything, func(h *vnet.Header) { h.ChecksumStart, h.ChecksumOffset = 2990, 9 }, 3000, vnet.ReasonChecksumRange},
		{"sum that overflows", everything, func(h *vnet.Header) { h.ChecksumStart, h.ChecksumOffset = 0xffff, 0xffff }, 3000, vnet.ReasonChecksumRange},
		{"fields that mean nothing", everything, func(h *vnet.Header) { *h = vnet.Header{ChecksumStart: 0xffff, GSOSize: 0xffff} }, 3000, vnet.ReasonNone},
		{"no Ethernet header", everything, func(h *vnet.Header) { *h = vnet.Header{} }, 13, vnet.ReasonShort},
		{"nothing", everything, func(h *vnet.Header) { *h = vnet.Header{} }, 0, vnet.ReasonShort},
		{"longest frame", everything, func(h *vnet.Header) { *h = vnet.Header{} }, vnet.MaxFrame, vnet.ReasonNone},
		{"too long", everything, func(h *vnet.Header) { *h = vnet.Header{} }, vnet.MaxFrame + 1, vnet.ReasonLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Config{})
			g := r.attach(options{features: c.features | virtio.FeatureIndirectDesc})
			h := good
			c.change(&h)
			g.pairs[0].post(vnet.Header{}, frameOf(1, 60))
			g.pairs[0].post(h, make([]byte, c.size), 5)
			g.pairs[0].send(vnet.Header{}, frameOf(2, 60))
			want := 3
			if c.reason != vnet.ReasonNone {
				want--
				if got := r.card.Stats()[0].Transmit.Dropped; got[c.reason] != 1 {
					t.Errorf("%v", got)
				}
			}
			sent := r.link.Sent()
			if len(sent) != want || r.card.Stats()[0].Transmit.Frames != uint64(want) {
				t.Errorf("%d frames, want %d", len(sent), want)
			}
		})
	}
}

func TestChainWithoutRoomForTheHeaderBreaksTheDevice(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	changed := make(chan struct{}, 8)
	g := r.attach(options{config: func(*driver.Device) { changed <- struct{}{} }})
	p := g.pairs[0]
	data := frameOf(1, 60)
	p.post(vnet.Header{}, data)
	p.postRaw(make([]byte, 11))
	must(t, p.tx.Kick())
	<-changed
	if err := g.d.Err(); !errors.Is(err, driver.ErrNeedsReset) {
		t.Error(err)
	}
	equal(t, r.link.Sent(), data)
	// A reset helps.
	g.d.Close()
	g.pairs = nil
	g.open(1)
	g.pairs[0].send(vnet.Header{}, data)
	equal(t, r.link.Sent(), data)
}

// What the link does not take stays in the ring, in its order, until the link has room.
func TestLinkThatIsFull(t *testing.T) {
	for name, ring := range layouts {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", name, byMessage), func(t *testing.T) {
				holdings.CheckLeaks(t)
				var room atomic.Int64
				l := &linktest.Link{OnSend: func(_ int, frames []vnet.Frame) int {
					n := min(int64(len(frames)), room.Load())
					room.Add(-n)
					return int(n)
				}}
				r := newRig(t, Config{Link: l})
				g := r.attach(options{features: ring, byMessage: byMessage})
				p := g.pairs[0]
				var want [][]byte
				for i := range 16 {
					want = append(want, frameOf(i, 60+i))
					if i == 3 || i == 9 { // dropped among those that wait
						p.post(vnet.Header{}, nil)
						want = want[:len(want)-1]
						continue
					}
					p.post(vnet.Header{}, want[len(want)-1])
				}
				must(t, p.tx.Kick())
				var sent []linktest.Frame
				for range len(want) {
					room.Store(1)
					l.Card().Wake(0)
					for room.Load() > 0 {
						// The card's worker takes it.
						if p.tx.InFlight() == 0 {
							break
						}
						n, err := p.tx.Reap(p.done)
						must(t, err)
						if n == 0 {
							must(t, p.tx.Wait(testContext(t)))
						}
					}
					sent = append(sent, l.Sent()...)
				}
				for p.tx.InFlight() > 0 {
					n, err := p.tx.Reap(p.done)
					must(t, err)
					if n == 0 {
						must(t, p.tx.Wait(testContext(t)))
					}
				}
				sent = append(sent, l.Sent()...)
				equal(t, sent, want...)
				if n := r.card.Stats()[0].Transmit.Dropped[vnet.ReasonShort]; n != 2 {
					t.Errorf("%d counted as dropped", n)
				}
			})
		}
	}
}

// On a loop the receive queue is what the transmit queue waits for.
func TestLoopWaitsForTheDriver(t *testing.T) {
	for name, ring := range layouts {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", name, byMessage), func(t *testing.T) {
				holdings.CheckLeaks(t)
				r := newRig(t, Config{Link: link.Loop()})
				g := r.attach(options{features: ring, byMessage: byMessage, size: 8, buffer: 16 << 10})
				p := g.pairs[0]
				// The ring takes 8 of these, the backlog 18; 6 have to wait where they are.
				var want [][]byte
				for i := range 32 {
					want = append(want, frameOf(i, 14<<10))
					p.post(vnet.Header{}, want[i])
					if i%8 == 7 {
						must(t, p.tx.Kick())
						if i < 24 {
							p.reapAll()
						}
					}
				}
				equal(t, p.receive(len(want)), want...)
				p.reapAll()
				if got := r.card.Stats()[0].Receive; got.NoBuffer != 0 || got.Waited == 0 {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}
