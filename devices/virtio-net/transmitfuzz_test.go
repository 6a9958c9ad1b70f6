package virtionet

import (
	"bytes"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/link/vnet"
)

// FuzzTransmit is a driver that sends frames whose headers are right, or lie, in chains that are cut
// anywhere, over a link that takes as many as it likes. Those that are right are sent once, in order,
// with what a receiver may believe of their headers; the others are dropped, and counted by reason.
//
//fuzz:covers devices/virtio-net/transmit.go link/vnet/header.go
func FuzzTransmit(f *testing.F) {
	choice.Corpus(f, 300, 400)
	ring := newFuzzRing(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		src, wire := choice.FromBytes(program), &fuzzWire{}
		q := ring.begin(t)
		defer ring.reader.Exit()
		m := &transmitModel{t: t, src: src, ring: ring, wire: wire, tx: &fuzzPair(t, wire).tx}
		m.features = choice.Pick(src, 0, src.Uint64(), ^uint64(0))
		m.tx.q, m.tx.header, m.tx.can = q, choice.Pick(src, spec.HeaderSize, spec.HeaderSizeHash), hostOffloads(m.features)
		for steps := 0; steps < 100 && src.More(); steps++ {
			if src.Odds(3) {
				m.send(src.Intn(8))
			} else {
				m.offer()
			}
		}
		for len(ring.chains) > 0 {
			m.send(batch)
		}
	})
}

// transmitModel is what is to be sent.
type transmitModel struct {
	t        *testing.T
	src      *choice.Source
	ring     *fuzzRing
	wire     *fuzzWire
	tx       *transmitter
	features uint64
	waiting  []outgoing
	dropped  [vnet.Reasons]uint64
}

// outgoing is a chain of the driver's.
type outgoing struct {
	wireFrame
	reason vnet.Reason
}

// offer makes a frame available.
func (m *transmitModel) offer() {
	src := m.src
	n := 14 + src.Intn(200)
	if src.Odds(12) {
		n = int(src.Edge(vnet.MaxFrame) % (vnet.MaxFrame + 100))
	}
	h := vnet.Header{}
	switch src.Intn(4) {
	case 0:
		h = vnet.Header{Flags: 1, ChecksumStart: uint16(14 + src.Intn(30)), ChecksumOffset: uint16(src.Intn(18))}
	case 1:
		h = segmentHeader(uint16(1 + src.Intn(1500)))
		h.GSOType = choice.Pick[uint8](src, 1, 4, 5, 0x81, 0x84)
	case 2:
		h = vnet.Header{Flags: src.Uint8(), GSOType: choice.Pick(src, 0, 1, 3, 4, 5, 0x80, 0x85, src.Uint8()), HeaderLen: uint16(src.Edge(uint64(n))),
			GSOSize: uint16(src.Edge(1500)), ChecksumStart: uint16(src.Edge(uint64(n))), ChecksumOffset: uint16(src.Edge(16))}
	}
	header := make([]byte, spec.HeaderSizeHash)
	h.Put(header, src.Uint16()) // of which the driver should say 0
	out := outgoing{wireFrame: wireFrame{data: make([]byte, n)}}
	for i := range out.data {
		out.data[i] = byte(i + int(m.ring.avail)*3)
	}
	out.header, out.reason = m.accepted(h, n)
	all := append(header[:m.tx.header:m.tx.header], out.data...)
	parts := m.ring.offer(false, sizesOf(src, len(all))...)
	if parts == nil {
		return
	}
	for _, p := range parts {
		all = all[copy(p, all):]
	}
	m.waiting = append(m.waiting, out)
}

// accepted says what a receiver is told of a frame of n bytes, or why it is dropped (5.1.6.2.1).
func (m *transmitModel) accepted(h vnet.Header, n int) (vnet.Header, vnet.Reason) {
	has := func(feature uint64) bool { return m.features&feature != 0 }
	sums, kind := h.Flags&1 == 1, h.GSOType
	switch {
	case n < 14:
		return h, vnet.ReasonShort
	case n > 14+8+40+65535:
		return h, vnet.ReasonLong
	case !sums && kind != 0:
		return h, vnet.ReasonNoChecksum
	case !sums:
		return vnet.Header{}, vnet.ReasonNone
	}
	allowed := has(spec.FeatureCSUM)
	switch kind {
	case 0:
		h.GSOSize = 0
	case 1:
		allowed = allowed && has(spec.FeatureHostTSO4)
	case 4:
		allowed = allowed && has(spec.FeatureHostTSO6)
	case 5:
		allowed = allowed && has(spec.FeatureHostUSO)
	case 0x81:
		allowed = allowed && has(spec.FeatureHostTSO4) && has(spec.FeatureHostECN)
	case 0x84:
		allowed = allowed && has(spec.FeatureHostTSO6) && has(spec.FeatureHostECN)
	default:
		return h, vnet.ReasonKind
	}
	switch {
	case kind != 0 && h.GSOSize == 0:
		return h, vnet.ReasonSize
	case h.ChecksumStart < 14 || int(h.ChecksumStart)+int(h.ChecksumOffset) > n-2:
		return h, vnet.ReasonChecksumRange
	case !allowed:
		return h, vnet.ReasonKind
	}
	h.Flags, h.HeaderLen = 1, uint16(min(int(h.HeaderLen), n))
	return h, vnet.ReasonNone
}

// send has the card send, and the link take so many.
func (m *transmitModel) send(takes int) {
	m.wire.takes, m.wire.sent = takes, nil
	used := m.tx.send()
	m.tx.q.Publish()
	chains, written := m.ring.reap()
	if len(chains) != used {
		m.t.Fatalf("%d chains are used, send says %d", len(chains), used)
	}
	want, n := []wireFrame(nil), 0
	for _, out := range m.waiting[:min(len(m.waiting), batch)] {
		if out.reason != vnet.ReasonNone {
			m.dropped[out.reason]++
		} else if len(want) == takes {
			break
		} else {
			want = append(want, out.wireFrame)
		}
		n++
	}
	m.waiting = m.waiting[n:]
	if used != n || len(m.wire.sent) != len(want) {
		m.t.Fatalf("%d chains are used and %d frames sent, want %d and %d", used, len(m.wire.sent), n, len(want))
	}
	for i, got := range m.wire.sent {
		if got.header != want[i].header || !bytes.Equal(got.data, want[i].data) {
			m.t.Fatalf("%d bytes with %+v are sent, want %d with %+v", len(got.data), got.header, len(want[i].data), want[i].header)
		}
	}
	for _, n := range written {
		if n != 0 {
			m.t.Fatalf("%d bytes are written to what is to be sent", n)
		}
	}
	for reason, n := range m.dropped {
		if got := m.tx.stats.dropped[reason].Load(); got != n {
			m.t.Fatalf("%d frames are dropped because of %v, want %d", got, vnet.Reason(reason), n)
		}
	}
}
