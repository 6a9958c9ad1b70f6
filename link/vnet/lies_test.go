package vnet_test

import (
	"math/rand/v2"
	"testing"

	"vfiouser/link/vnet"
)

func TestFramesThatLieAreDropped(t *testing.T) {
	tcp4 := recipe{payload: 3000}
	udp6 := recipe{udp: true, ip6: true, payload: 3000}
	for _, c := range []struct {
		name   string
		recipe recipe
		lie    func(data []byte, h *vnet.Header) []byte
		want   vnet.Reason
	}{
		{"nothing", tcp4, func(d []byte, _ *vnet.Header) []byte { return d }, vnet.ReasonNone},
		{"runt", tcp4, func(d []byte, _ *vnet.Header) []byte { return d[:13] }, vnet.ReasonShort},
		{"giant", tcp4, func(d []byte, _ *vnet.Header) []byte { return make([]byte, vnet.MaxFrame+1) }, vnet.ReasonLong},
		{"kind UFO", tcp4, func(d []byte, h *vnet.Header) []byte { h.GSOType = 3; return d }, vnet.ReasonKind},
		{"kind with unknown bits", tcp4, func(d []byte, h *vnet.Header) []byte { h.GSOType |= 0x20; return d }, vnet.ReasonKind},
		{"ECN alone", tcp4, func(d []byte, h *vnet.Header) []byte { h.GSOType = vnet.GSOECN; return d }, vnet.ReasonKind},
		{"ECN of UDP", udp6, func(d []byte, h *vnet.Header) []byte { h.GSOType |= vnet.GSOECN; return d }, vnet.ReasonKind},
		{"size 0", tcp4, func(d []byte, h *vnet.Header) []byte { h.GSOSize = 0; return d }, vnet.ReasonSize},
		{"no checksum", tcp4, func(d []byte, h *vnet.Header) []byte { h.Flags = 0; return d }, vnet.ReasonNoChecksum},
		{"valid instead", tcp4, func(d []byte, h *vnet.Header) []byte { h.Flags = vnet.FlagDataValid; return d }, vnet.ReasonNoChecksum},
		{"start beyond", tcp4, func(d []byte, h *vnet.Header) []byte { h.ChecksumStart = 65535; return d }, vnet.ReasonChecksumRange},
		{"offset beyond", tcp4, func(d []byte, h *vnet.Header) []byte { h.ChecksumOffset = 65535; return d }, vnet.ReasonChecksumRange},
		{"checksum half beyond", tcp4, func(d []byte, h *vnet.Header) []byte { return d[:34+17] }, vnet.ReasonChecksumRange},
		{"start in the Ethernet header", tcp4, func(d []byte, h *vnet.Header) []byte { h.ChecksumStart = 13; return d }, vnet.ReasonChecksumRange},
		{"start elsewhere", tcp4, func(d []byte, h *vnet.Header) []byte { h.ChecksumStart++; return d }, vnet.ReasonChecksumPlace},
		{"offset elsewhere", udp6, func(d []byte, h *vnet.Header) []byte { h.ChecksumOffset = 16; return d }, vnet.ReasonChecksumPlace},
		{"IPv4 as IPv6", tcp4, func(d []byte, h *vnet.Header) []byte { h.GSOType = vnet.GSOTCP6; return d }, vnet.ReasonProtocol},
		{"TCP as UDP", tcp4, func(d []byte, h *vnet.Header) []byte { h.GSOType = vnet.GSOUDPL4; return d }, vnet.ReasonProtocol},
		{"neither TCP nor UDP", tcp4, func(d []byte, _ *vnet.Header) []byte { d[23] = 132; return d }, vnet.ReasonProtocol},
		{"not IP", tcp4, func(d []byte, _ *vnet.Header) []byte { d[13] = 6; return d }, vnet.ReasonProtocol},
		{"three tags", recipe{tags: 2, payload: 3000}, func(d []byte, _ *vnet.Header) []byte { d[20], d[21] = 0x81, 0; return d }, vnet.ReasonProtocol},
		{"version", tcp4, func(d []byte, _ *vnet.Header) []byte { d[14] = 0x65; return d }, vnet.ReasonHeaders},
		{"IPv4 header length", tcp4, func(d []byte, _ *vnet.Header) []byte { d[14] = 0x44; return d }, vnet.ReasonHeaders},
		{"TCP header length", tcp4, func(d []byte, _ *vnet.Header) []byte { d[34+12] = 0x40; return d }, vnet.ReasonHeaders},
		{"TCP header beyond", tcp4, func(d []byte, _ *vnet.Header) []byte { d[34+12] = 0xf0; return d[:34+40] }, vnet.ReasonHeaders},
		{"version 6", udp6, func(d []byte, _ *vnet.Header) []byte { d[14] = 0x40; return d }, vnet.ReasonHeaders},
		{"extension beyond", recipe{ip6: true, udp: true, options: 8, payload: 3000},
			func(d []byte, _ *vnet.Header) []byte { d[14+41] = 255; return d }, vnet.ReasonHeaders},
		{"extensions to the frame's end", recipe{ip6: true, udp: true, options: 8, payload: 3000},
			func(d []byte, _ *vnet.Header) []byte { clear(d[14+40:]); return d }, vnet.ReasonHeaders},
		{"fragment", tcp4, func(d []byte, _ *vnet.Header) []byte { d[20] = 0x20; return d }, vnet.ReasonFragment},
		{"fragment's rest", tcp4, func(d []byte, _ *vnet.Header) []byte { d[21] = 1; return d }, vnet.ReasonFragment},
		{"IPv6 fragment", udp6, func(d []byte, _ *vnet.Header) []byte { d[20] = 44; return d }, vnet.ReasonFragment},
		{"too many", recipe{payload: vnet.MaxSegments + 1}, func(d []byte, h *vnet.Header) []byte { h.GSOSize = 1; return d }, vnet.ReasonSegments},
		{"just not too many", recipe{payload: vnet.MaxSegments}, func(d []byte, h *vnet.Header) []byte { h.GSOSize = 1; return d }, vnet.ReasonNone},
		{"segment longer than IPv4", tcp4, func(d []byte, h *vnet.Header) []byte {
			h.GSOSize = 65535
			return append(d, make([]byte, 14+65536-len(d))...)
		}, vnet.ReasonLong},
		{"segment as long as IPv4 can", tcp4, func(d []byte, h *vnet.Header) []byte {
			h.GSOSize = 65535
			return append(d, make([]byte, 14+65535-len(d))...)
		}, vnet.ReasonNone},
		{"segment as long as IPv6 can", udp6, func(d []byte, h *vnet.Header) []byte {
			h.GSOSize = 65535
			return append(d, make([]byte, 54+65535-len(d))...)
		}, vnet.ReasonNone},
		{"no payload", recipe{}, func(d []byte, _ *vnet.Header) []byte { return d }, vnet.ReasonNone},
		{"hint beyond", tcp4, func(d []byte, h *vnet.Header) []byte { h.HeaderLen = 65535; return d }, vnet.ReasonNone},
		{"length in IPv4", tcp4, func(d []byte, _ *vnet.Header) []byte { d[16], d[17] = 0, 1; return d }, vnet.ReasonNone},
	} {
		data, h := c.recipe.frame(rand.New(rand.NewPCG(1, 1)))
		h.GSOSize = 1000
		data = c.lie(data, &h)
		var s vnet.Scratch
		got, _, r := lower(&s, data, [][]byte{data}, h, vnet.OffloadNone)
		if r != c.want || (len(got) == 0) != (r != vnet.ReasonNone) {
			t.Errorf("%s: %v and %d frames, want %v", c.name, r, len(got), c.want)
		}
	}
}

// Whatever a guest writes, nothing breaks, and what comes out has a sane size.
func TestRandomLies(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	var s vnet.Scratch
	reasons := [vnet.Reasons]int{}
	for range 2000 {
		r, size := random(rnd)
		data, h := r.frame(rnd)
		h.GSOSize = uint16(size)
		for range 1 + rnd.IntN(3) {
			switch rnd.IntN(8) {
			case 0:
				h.ChecksumStart = uint16(rnd.IntN(100))
			case 1:
				h.GSOType = uint8(rnd.IntN(6))
			case 2:
				h.GSOSize = uint16(rnd.Uint32()) & uint16(rnd.IntN(3)-1)
			case 4:
				h.Flags = uint8(rnd.Uint32())
			case 3:
				data = data[:rnd.IntN(len(data)+1)]
			default:
				if len(data) > 0 {
					data[rnd.IntN(min(len(data), 100))] = byte(rnd.Uint32())
				}
			}
		}
		frames, _, reason := lower(&s, data, scatter(rnd, data), h, vnet.Offloads(rnd.Uint32())&vnet.OffloadAll)
		reasons[reason]++
		if len(frames) > vnet.MaxSegments {
			t.Fatalf("%d frames", len(frames))
		}
		for _, f := range frames {
			if len(f) > vnet.MaxFrame {
				t.Fatalf("a frame of %d bytes", len(f))
			}
		}
	}
	for r, n := range reasons {
		if n == 0 && vnet.Reason(r) != vnet.ReasonLong {
			t.Errorf("never dropped for %q", vnet.Reason(r))
		}
	}
}

func TestCleanTakesOutWhatDoesNotBelongThere(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want vnet.Header
	}{
		{"a complete frame has no header",
			vnet.Header{Flags: 0xfe, HeaderLen: 1, GSOSize: 2, ChecksumStart: 3, ChecksumOffset: 4}, vnet.Header{}},
		{"a sum without segments has no size",
			vnet.Header{Flags: 0xff, GSOSize: 9, ChecksumStart: 20, ChecksumOffset: 4},
			vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 20, ChecksumOffset: 4}},
		{"the hint stays in the frame",
			vnet.Header{Flags: 1, GSOType: vnet.GSOTCP4, GSOSize: 9, HeaderLen: 101, ChecksumStart: 20, ChecksumOffset: 4},
			vnet.Header{Flags: 1, GSOType: vnet.GSOTCP4, GSOSize: 9, HeaderLen: 100, ChecksumStart: 20, ChecksumOffset: 4}},
	} {
		h := c.in
		if r := h.Clean(100); r != vnet.ReasonNone || h != c.want {
			t.Errorf("%s: %v, %+v", c.name, r, h)
		}
	}
}
