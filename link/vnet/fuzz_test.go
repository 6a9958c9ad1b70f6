package vnet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"vfiouser/fuzz/choice"
	"vfiouser/link/vnet"
)

// FuzzLower finishes frames for receivers that can do this or that. A frame that its headers
// describe has the segments of the reference. One that lies is refused, or what comes out of it
// is sound: every segment has right lengths and checksums, and their payloads are the frame's.
//
//fuzz:covers link/vnet/header.go link/vnet/lower.go link/vnet/parse.go link/vnet/segment.go link/vnet/sum.go link/vnet/frame.go
func FuzzLower(f *testing.F) {
	choice.Corpus(f, 300, 200)
	var s vnet.Scratch
	f.Fuzz(func(t *testing.T, program []byte) {
		src := choice.FromBytes(program)
		r := chosen(src)
		data, h := r.frame(rand.New(rand.NewPCG(src.Uint64(), 1)))
		h.GSOSize = uint16(64 + src.Intn(3000))
		honest := src.Odds(3) && r.tags < 3
		if !honest {
			data = r.lie(src, data, &h)
		}
		before, can := bytes.Clone(data), vnet.Offloads(src.Intn(int(vnet.OffloadAll)+1))
		got, headers, reason := lower(&s, data, parts(src, data), h, can)
		if !bytes.Equal(data, before) {
			t.Fatal("the sender's memory was changed")
		}
		clean := h
		switch refused := !acceptable(&clean, len(data)); {
		case refused != (reason != vnet.ReasonNone) && (refused || clean.GSOType == vnet.GSONone):
			t.Fatalf("%+v with %d bytes: %v", h, len(data), reason)
		case honest && reason != vnet.ReasonNone:
			t.Fatalf("%+v, %d a segment: %v", r, h.GSOSize, reason)
		case reason != vnet.ReasonNone && len(got) > 0:
			t.Fatalf("%d frames, and %v", len(got), reason)
		case reason != vnet.ReasonNone:
			return
		}
		for i := range got {
			if headers[i].Needs()&^can != 0 {
				t.Fatalf("a frame with %+v for one that can %b", headers[i], can)
			}
		}
		switch {
		case clean.Needs()&^can == 0: // handed on
			if len(got) != 1 || !bytes.Equal(got[0], data) {
				t.Fatalf("%d frames, not the one that it was", len(got))
			}
			return
		case clean.GSOType == vnet.GSONone:
			if len(got) != 1 || !bytes.Equal(got[0], summed(data, int(clean.ChecksumStart), int(clean.ChecksumOffset))) {
				t.Fatalf("%d frames with another checksum", len(got))
			}
			return
		}
		for i := range got { // those that are left to the receiver
			if headers[i].Needs() != vnet.OffloadNone {
				h := headers[i]
				got[i] = summed(got[i], int(h.ChecksumStart), int(h.ChecksumOffset))
			}
		}
		if honest {
			equalSegments(t, got, r.cut(data, int(h.GSOSize)))
		}
		soundSegments(t, data, got, &clean)
	})
}

// FuzzSum: the sum of pieces of any length is that of the whole.
//
//fuzz:covers link/vnet/sum.go
func FuzzSum(f *testing.F) {
	choice.Fuzz(f, 40, 100, func(t *testing.T, src *choice.Source) {
		var sum vnet.Sum
		var whole []byte
		for src.More() {
			p := src.Bytes(src.Intn(20))
			if src.Odds(8) {
				p = bytes.Repeat([]byte{src.Uint8()}, src.Intn(300))
			}
			sum.Add(p)
			whole = append(whole, p...)
			if v := src.Uint16(); len(whole)%2 == 0 && src.Odds(4) {
				sum.AddUint16(v)
				whole = binary.BigEndian.AppendUint16(whole, v)
			}
		}
		if got, want := sum.Checksum(), internet(whole); got != want {
			t.Fatalf("%#x of %d bytes, want %#x", got, len(whole), want)
		}
		if sum.Folded() != ^sum.Checksum() {
			t.Fatalf("%#x is not the complement of %#x", sum.Checksum(), sum.Folded())
		}
	})
}

// chosen is a recipe.
func chosen(src *choice.Source) recipe {
	r := recipe{
		tags: src.Intn(3), ip6: src.Bool(), udp: src.Bool(), options: 8 * src.Intn(4), tcpOptions: 4 * src.Intn(11),
		flags: src.Uint8(), payload: src.Intn(3000),
	}
	if src.Odds(16) {
		r.tags = 3 // one too many
	}
	if src.Odds(32) {
		r.payload = 65535 - 200 - src.Intn(3000)
	}
	return r
}

// lie makes a frame and its header say different things, or things at the edge of what can be.
func (r recipe) lie(src *choice.Source, data []byte, h *vnet.Header) []byte {
	for range 1 + src.Intn(4) {
		switch src.Intn(15) {
		case 0:
			h.ChecksumStart = uint16(src.Edge(uint64(len(data))))
		case 1:
			h.ChecksumOffset = uint16(src.Edge(16))
		case 2:
			h.GSOType = choice.Pick(src, vnet.GSONone, vnet.GSOTCP4, vnet.GSOTCP6, vnet.GSOUDPL4, vnet.GSOECN, h.GSOType|vnet.GSOECN, src.Uint8())
		case 3:
			h.GSOSize = uint16(src.Edge(uint64(len(data))))
		case 4:
			h.Flags = src.Uint8()
		case 5:
			data = data[:src.Intn(len(data)+1)]
		case 6:
			data = append(data, make([]byte, src.Intn(70000))...)
		case 7: // another length of the IPv4 header, where the checksum begins as well
			if n := src.Intn(16); len(data) > r.network() && !r.ip6 {
				data[r.network()] = 0x40 | byte(n)
				h.ChecksumStart = uint16(r.network() + 4*n)
			}
		case 8: // as many segments as there can be, or one more
			h.GSOSize = uint16(1 + src.Intn(30))
			data = resize(data, r.data()+vnet.MaxSegments*int(h.GSOSize)+src.Intn(2))
		case 9: // a segment as long as an IP packet can be, or a byte longer
			longest := 65535 - (r.data() - r.network())
			if r.ip6 {
				longest += 40
			}
			h.GSOSize = uint16(longest + src.Intn(2))
			data = resize(data, min(r.data()+longest+1, vnet.MaxFrame))
		case 10: // a routing header behind that of IPv6, or more fragments of IPv4
			if at := r.network() + 6; at < len(data) {
				data[at] = choice.Pick[byte](src, 43, 0x20)
			}
			if at := r.field(); at < len(data) { // the sum of other addresses
				data[at] = src.Uint8()
			}
		case 11: // an extension header of IPv6 that ends where the frame does, or near
			if at := r.network() + 40; r.ip6 && r.options > 0 && len(data) >= at+8 {
				data = data[:min(len(data), at+8+src.Intn(64))]
				data[at], data[at+1] = byte(r.proto()), byte((len(data)-at-8)/8+src.Intn(3))
				h.ChecksumStart = 14 // which is in the frame, at least
			}
		default: // in the headers, mostly
			if n := min(len(data), 120); n > 0 {
				data[src.Intn(n)] = choice.Pick(src, src.Uint8(), 0, 4, 6, 17, 43, 44, 60, 0x45, 0x60, 0xff)
			}
		}
	}
	return data
}

// resize cuts data, or adds zeroes.
func resize(data []byte, n int) []byte {
	return append(data, make([]byte, max(n-len(data), 0))...)[:n]
}

// parts cuts a frame at a few places.
func parts(src *choice.Source, data []byte) (list [][]byte) {
	for range src.Intn(6) {
		n := src.Intn(min(len(data), 250) + 1)
		list = append(list, data[:n])
		data = data[n:]
	}
	return append(list, data)
}

// acceptable says whether a header that is cleaned is one that a frame of n bytes can have.
func acceptable(h *vnet.Header, n int) bool {
	if n < 14 || n > 14+8+40+65535 {
		return false
	}
	kind := h.GSOType
	switch known := kind == 1 || kind == 4 || kind == 5 || kind == 0x81 || kind == 0x84; {
	case h.Flags&1 == 0 && kind != 0, kind != 0 && !known, known && h.GSOSize == 0:
		return false
	case h.Flags&1 == 0:
		*h = vnet.Header{}
		return true
	}
	return h.ChecksumStart >= 14 && int(h.ChecksumStart)+int(h.ChecksumOffset) <= n-2
}

// summed is a frame with the checksum that was left to be done.
func summed(data []byte, start, offset int) []byte {
	data = bytes.Clone(data)
	sum := internet(data[start:])
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(data[start+offset:], sum)
	return data
}

func equalSegments(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d segments, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("segment %d of %d is\n%x, want\n%x", i, len(got), got[i], want[i])
		}
	}
}

// soundSegments looks at segments as somebody on the wire does.
func soundSegments(t *testing.T, data []byte, got [][]byte, h *vnet.Header) {
	t.Helper()
	whole, ok := dissect(data)
	if !ok {
		t.Fatalf("%d segments of a frame that cannot be read: %x", len(got), data[:min(len(data), 200)])
	}
	size, field := int(h.GSOSize), 16
	if whole.proto == 17 {
		field = 6
	}
	if int(h.ChecksumStart) != whole.transport || int(h.ChecksumOffset) != field {
		t.Fatalf("%d segments of a frame whose checksum is %d bytes behind %d, not %d behind %d", len(got), h.ChecksumOffset, h.ChecksumStart, field, whole.transport)
	}
	if len(got) > vnet.MaxSegments {
		t.Fatalf("%d segments", len(got))
	}
	rest := data[whole.payload:]
	for i, s := range got {
		d, ok := dissect(s)
		if !ok || d.payload != whole.payload || d.transport != whole.transport {
			t.Fatalf("segment %d cannot be read: %x", i, s)
		}
		payload := s[d.payload:]
		if last := i == len(got)-1; len(payload) > size || !last && len(payload) != size || !bytes.HasPrefix(rest, payload) {
			t.Fatalf("segment %d has %d bytes of payload, or others", i, len(payload))
		}
		rest = rest[len(payload):]
		ip, l4 := s[d.network:], s[d.transport:]
		length, addresses := int(binary.BigEndian.Uint16(ip[2:])), ip[12:20]
		if d.ip6 {
			length, addresses = int(binary.BigEndian.Uint16(ip[4:]))+40, ip[8:40]
		} else {
			if internet(s[d.network:d.transport]) != 0 {
				t.Fatalf("segment %d has a wrong checksum of its IP header", i)
			}
			if ip[6]&0x3f != 0 || ip[7] != 0 {
				t.Fatalf("segment %d is of a fragment", i)
			}
		}
		if length != len(ip) {
			t.Fatalf("segment %d says that it has %d bytes, and has %d", i, length, len(ip))
		}
		if d.proto == 17 && int(binary.BigEndian.Uint16(l4[4:])) != len(l4) {
			t.Fatalf("datagram %d has %d bytes, and says others", i, len(l4))
		}
		summed := [][]byte{addresses, be16(d.proto), be16(len(l4)), l4}
		if d.routed { // the last destination is elsewhere: the sender has summed it, with its length
			summed = [][]byte{data[d.transport+field:][:2], be16(^(len(data) - d.transport) & 0xffff), be16(len(l4)), l4}
		}
		if internet(summed...) != 0 {
			t.Fatalf("segment %d has a wrong checksum", i)
		}
	}
	if len(rest) > 0 {
		t.Fatalf("%d bytes of payload are missing", len(rest))
	}
}

// dissection is where the headers of a frame are, bytes from its start.
type dissection struct {
	ip6, routed                 bool
	proto                       int
	network, transport, payload int
}

// dissect reads the headers of a TCP or UDP frame.
func dissect(b []byte) (d dissection, ok bool) {
	defer func() { ok = recover() == nil && ok }() // it ends early
	d.network = 14
	for range 2 {
		if kind := string(b[d.network-2 : d.network]); kind == "\x81\x00" || kind == "\x88\xa8" {
			d.network += 4
		}
	}
	ip := b[d.network:]
	switch string(b[d.network-2 : d.network]) {
	case "\x08\x00":
		d.proto, d.transport = int(ip[9]), d.network+4*int(ip[0]&15)
		if ip[0]>>4 != 4 || ip[0]&15 < 5 {
			return d, false
		}
	case "\x86\xdd":
		d.ip6, d.proto, d.transport = true, int(ip[6]), d.network+40
		for d.proto == 0 || d.proto == 43 || d.proto == 60 {
			h := b[d.transport:]
			d.routed = d.routed || d.proto == 43 && h[3] > 0
			d.proto, d.transport = int(h[0]), d.transport+8+8*int(h[1])
		}
	}
	d.payload = d.transport + 8
	if d.proto == 6 {
		d.payload = d.transport + 4*int(b[d.transport+12]>>4)
	}
	return d, d.payload <= len(b) && (d.proto == 6 || d.proto == 17)
}
