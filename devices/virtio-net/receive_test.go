package virtionet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"vfiouser/devices/virtio-net/spec"
	virtio "vfiouser/devices/virtio/spec"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// arrive has the card's link deliver frames on queue q.
func (r *rig) arrive(q int, data ...[]byte) {
	for _, d := range data {
		r.link.Arrive(linktest.Frame{Queue: q, Data: d})
	}
}

func TestMergedReceiveBuffers(t *testing.T) {
	const header, buffer = 12, 1024
	for name, ring := range layouts {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", name, byMessage), func(t *testing.T) {
				r := newRig(t, Config{})
				g := r.attach(options{features: ring | spec.FeatureMrgRxBuf, buffer: buffer, byMessage: byMessage})
				p := g.pairs[0]
				for i, c := range []struct{ size, buffers int }{
					{60, 1}, {buffer - header - 1, 1}, {buffer - header, 1}, {buffer - header + 1, 2},
					{2*buffer - header, 2}, {2*buffer - header + 1, 3}, {30000, 30}, {50000, 49}, {61, 1}, {vnet.MaxFrame - 100, 65536/1024 + 1},
				} {
					if c.buffers > g.o.size {
						continue
					}
					data := frameOf(i, c.size)
					r.arrive(0, data)
					equal(t, p.receive(1), data)
					if p.merged[len(p.merged)-1] != c.buffers {
						t.Errorf("%d bytes in %d buffers, want %d", c.size, p.merged[len(p.merged)-1], c.buffers)
					}
				}
			})
		}
	}
}

// A batch in which a large frame finds too few of the buffers that were taken for it.
func TestMergedBuffersInABatch(t *testing.T) {
	r := newRig(t, Config{})
	g := r.attach(options{features: spec.FeatureMrgRxBuf, buffer: 256})
	g.pairs[0].send(vnet.Header{}, frameOf(0, 60)) // the card has started
	var sent [][]byte
	for i, size := range []int{60, 5000, 244, 245, 3000, 60, 60, 2000} {
		sent = append(sent, frameOf(i, size))
	}
	if n := r.link.Card().Receive(0, linktest.Frames(sent...)); n != len(sent) {
		t.Errorf("%d taken", n)
	}
	equal(t, g.pairs[0].receive(len(sent)), sent...)
	want := []int{1, 20, 1, 2, 12, 1, 1, 8}
	if !slices.Equal(g.pairs[0].merged, want) {
		t.Errorf("buffers %v, want %v", g.pairs[0].merged, want)
	}
}

func TestFrameThatDoesNotFitIsDropped(t *testing.T) {
	for _, c := range []struct {
		name     string
		features uint64
		buffer   int
		size     int
	}{
		{"one buffer", 0, 1024, 1024 - 12 + 1},
		{"all buffers", spec.FeatureMrgRxBuf, 256, 256*64 + 1},
		{"MTU", spec.FeatureMrgRxBuf | spec.FeatureMTU, 2048, 1400 + etherSize + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Config{MTU: 1400})
			g := r.attach(options{features: c.features, buffer: c.buffer})
			last := frameOf(2, 100)
			r.arrive(0, frameOf(1, c.size), last)
			equal(t, g.pairs[0].receive(1), last)
			if got := r.card.Stats()[0].Receive; got.TooLong != 1 || got.Frames != 1 || got.Bytes != 100 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A VLAN tag does not count, and neither does what is yet to be segmented.
func TestMTUBoundsWhatIsReceived(t *testing.T) {
	r := newRig(t, Config{MTU: 1400})
	g := r.attach(options{features: spec.FeatureMrgRxBuf | spec.FeatureMTU | spec.FeatureGuestCSUM | spec.FeatureGuestTSO4})
	exact := frameOf(1, 1400+etherSize)
	tagged := packet{vlan: 5, payload: 1400}.frame()
	r.arrive(0, exact, tagged, packet{vlan: 5, payload: 1401}.frame())
	big := linktest.Frame{Data: segments(4000), Header: segmentHeader(1000)}
	r.link.Arrive(big)
	equal(t, g.pairs[0].receive(3), exact, tagged, big.Data)
}

// Segments are bounded too, once they have been cut.
func TestMTUBoundsSegments(t *testing.T) {
	r := newRig(t, Config{MTU: 1400})
	g := r.attach(options{features: spec.FeatureMrgRxBuf | spec.FeatureMTU | spec.FeatureGuestCSUM})
	r.link.Arrive(linktest.Frame{Data: segments(4000), Header: segmentHeader(1361)})
	r.link.Arrive(linktest.Frame{Data: segments(2720), Header: segmentHeader(1360)})
	for _, f := range g.pairs[0].receive(2) {
		if len(f.Data) != 1400+etherSize {
			t.Errorf("%d bytes", len(f.Data))
		}
	}
	if got := r.card.Stats()[0].Receive; got.TooLong != 1 || got.Frames != 2 {
		t.Errorf("%+v", got)
	}
}

func TestFramesWithoutADriverAreDropped(t *testing.T) {
	r := newRig(t, Config{})
	if n := r.link.Card().Receive(0, linktest.Frames(frameOf(1, 60), frameOf(2, 60))); n != 2 {
		t.Errorf("%d frames taken without a driver", n)
	}
	if got := r.card.Stats()[0].Receive.NoDriver; got != 2 {
		t.Errorf("%d counted", got)
	}
}

// When there are no buffers frames wait in the card; when there is no room for them either the
// link is told, and asked again when the driver has made room. Nothing is lost or reordered.
func TestBackPressure(t *testing.T) {
	for name, ring := range layouts {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", name, byMessage), func(t *testing.T) {
				holdings.CheckLeaks(t)
				r := newRig(t, Config{})
				g := r.attach(options{features: ring | spec.FeatureMrgRxBuf, byMessage: byMessage})
				const n = 1200
				frames := make([][]byte, n)
				for i := range frames {
					frames[i] = binary.BigEndian.AppendUint32(packet{payload: 500}.frame(), uint32(i))
					r.arrive(0, frames[i])
				}
				equal(t, g.pairs[0].receive(n), frames...)
				if got := r.card.Stats()[0].Receive; got.Frames != n || got.NoBuffer != 0 || got.Waited == 0 {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}

// Frames that one pair's link delivers can wait for another pair's queue.
func TestBackPressureFromAnotherPair(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, byMessage := range []bool{false, true} {
		r := newRig(t, Config{Pairs: 2})
		g := r.attach(options{features: all &^ spec.FeatureRSS, byMessage: byMessage})
		const n = 2000
		frames := make([][]byte, n)
		for i := range frames {
			frames[i] = binary.BigEndian.AppendUint32(packet{payload: 500}.frame(), uint32(i))
			r.arrive(1, frames[i])
		}
		equal(t, g.pairs[0].receive(n), frames...)
		g.d.Close()
	}
}

// segments is a TCP packet with a payload of n bytes, and a checksum that is to be done.
func segments(n int) []byte {
	b := packet{from: "10.0.0.1:1000", to: "10.0.0.2:2000", proto: protoTCP, payload: n}.frame()
	b[etherSize+ipv4Size+12] = 5 << 4
	for i := range n {
		b[len(b)-n+i] = byte(i)
	}
	return b
}

func segmentHeader(size uint16) vnet.Header {
	return vnet.Header{Flags: vnet.FlagNeedsChecksum, GSOType: vnet.GSOTCP4, HeaderLen: 54, GSOSize: size,
		ChecksumStart: etherSize + ipv4Size, ChecksumOffset: 16}
}

func TestWhatTheDriverCannotFinishIsFinished(t *testing.T) {
	const size = 1000
	sum := vnet.Header{Flags: vnet.FlagNeedsChecksum, HeaderLen: 54, ChecksumStart: etherSize + ipv4Size, ChecksumOffset: 16}
	valid := vnet.Header{Flags: vnet.FlagDataValid}
	for _, c := range []struct {
		name     string
		features uint64
		header   vnet.Header
		frames   int
		want     vnet.Header // of the first
	}{
		{"segments", spec.FeatureGuestCSUM | spec.FeatureGuestTSO4, segmentHeader(size), 1, segmentHeader(size)},
		{"segments are cut", spec.FeatureGuestCSUM, segmentHeader(size), 4,
			vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: etherSize + ipv4Size, ChecksumOffset: 16}},
		{"segments are cut and summed", 0, segmentHeader(size), 4, vnet.Header{}},
		{"sum is left", spec.FeatureGuestCSUM, sum, 1, sum},
		{"sum is done", 0, sum, 1, vnet.Header{}},
		{"validity is told", spec.FeatureGuestCSUM, valid, 1, valid},
		{"validity is not told", 0, valid, 1, vnet.Header{}},
	} {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", c.name, byMessage), func(t *testing.T) {
				r := newRig(t, Config{})
				g := r.attach(options{features: c.features | spec.FeatureMrgRxBuf | spec.FeatureCtrlVQ | spec.FeatureHashReport, byMessage: byMessage})
				g.ok(spec.ClassMQ, spec.MQHashConfig, (&spec.HashConfig{HashTypes: spec.HashIPv4, Key: microsoftKey}).Append(nil))
				data := segments(4 * size)
				r.link.Arrive(linktest.Frame{Header: c.header, Data: data})
				got := g.pairs[0].receive(c.frames)
				if first := got[0].Header; first.Flags != c.want.Flags || first.GSOType != c.want.GSOType || first.GSOSize != c.want.GSOSize ||
					first.ChecksumStart != c.want.ChecksumStart {
					t.Errorf("%+v, want %+v", first, c.want)
				}
				var payload []byte
				for i, f := range got {
					payload = append(payload, f.Data[54:]...)
					if report := g.pairs[0].report[i]; report.Report != spec.ReportIPv4 || report.Value == 0 {
						t.Errorf("segment %d is reported as %+v", i, report)
					}
				}
				if !bytes.Equal(payload, data[54:]) {
					t.Error("the payload is not what was sent")
				}
			})
		}
	}
}

// Segments that are cut here wait for buffers like any other frame, also if the driver never
// has enough for all those of a frame.
func TestSegmentsWaitForBuffers(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureRingPacked | virtio.FeatureEventIdx} {
		for _, byMessage := range []bool{false, true} {
			r := newRig(t, Config{})
			g := r.attach(options{features: features, size: 16, buffers: 3, byMessage: byMessage})
			var sent, got []byte
			for i := range 40 {
				data := segments(4000)
				data[len(data)-1] = byte(i)
				sent = append(sent, data[54:]...)
				r.link.Arrive(linktest.Frame{Header: segmentHeader(1000), Data: data})
			}
			for _, f := range g.pairs[0].receive(160) {
				got = append(got, f.Data[54:]...)
			}
			if !bytes.Equal(got, sent) {
				t.Error("the payload is not what was sent")
			}
			if lost := r.card.Stats()[0].Receive.NoBuffer; lost != 0 {
				t.Errorf("%d segments were lost", lost)
			}
		}
	}
}

// A frame that is more than all the buffers of a driver who gives few does not keep those behind
// it for good.
func TestFrameThatNeverFitsDoesNotBlock(t *testing.T) {
	for _, byMessage := range []bool{false, true} {
		r := newRig(t, Config{})
		g := r.attach(options{features: spec.FeatureMrgRxBuf, size: 64, buffers: 4, buffer: 256, byMessage: byMessage})
		r.arrive(0, frameOf(1, 1400))
		data := frameOf(2, 200)
		eventually(t, "the frame is given up", func() bool {
			r.arrive(0, data) // whatever happens on the link
			time.Sleep(time.Millisecond)
			return r.card.Stats()[0].Receive.TooLong == 1
		})
		equal(t, g.pairs[0].receive(1), data)
	}
}

// A delivery that has asked for buffers as often as it may leaves the rest to the pair's worker: a
// driver that gives one buffer at a time, always just in time, need not tell of any.
func TestDeliveryThatAskedTooOften(t *testing.T) {
	for _, broken := range []bool{false, true} {
		p := new(pair)
		rx := &p.rx
		rx.p = p
		rx.buffers.asked, rx.buffers.broken = maxAsked, broken
		if rx.await() {
			t.Errorf("broken %v: it goes on", broken)
		}
		if rx.starved.Load() == broken || p.woken.Load() == broken {
			t.Errorf("broken %v: starved %v, the pair is woken %v", broken, rx.starved.Load(), p.woken.Load())
		}
	}
}

func TestOffloadsChangeByCommand(t *testing.T) {
	for _, byMessage := range []bool{false, true} {
		offloadsChange(t, options{features: all, without: virtio.FeatureRingPacked, byMessage: byMessage})
	}
}

func offloadsChange(t *testing.T, o options) {
	r := newRig(t, Config{})
	g := r.attach(o)
	g.pairs[0].send(vnet.Header{}, frameOf(0, 60)) // the card has started
	if can, pairs := r.link.Offloads(); can != vnet.OffloadAll || pairs != 1 {
		t.Errorf("%b, %d pairs", can, pairs)
	}
	big := linktest.Frame{Header: segmentHeader(1000), Data: segments(4000)}
	r.link.Arrive(big)
	equal(t, g.pairs[0].receive(1), big.Data)
	g.ok(spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64(spec.FeatureGuestCSUM))
	if can, _ := r.link.Offloads(); can != vnet.OffloadChecksum {
		t.Errorf("%b", can)
	}
	r.link.Arrive(big)
	g.pairs[0].receive(4)
	// And back and forth while such frames arrive.
	for i := range 20 {
		r.link.Arrive(big)
		g.ok(spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64([]uint64{0, spec.FeatureGuestCSUM | spec.FeatureGuestTSO4}[i%2]))
		for g.pairs[0].poll() > 0 {
		}
	}
	// Segments without checksums are not possible, so they are off, too.
	g.ok(spec.ClassGuestOffloads, spec.GuestOffloadsSet, le64(spec.FeatureGuestTSO4))
	if can, _ := r.link.Offloads(); can != 0 {
		t.Errorf("%b", can)
	}
	g.d.Close()
	if can, pairs := r.link.Offloads(); can != 0 || pairs != 0 {
		t.Errorf("without a driver: %b, %d pairs", can, pairs)
	}
}
