package vnet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"vfiouser/link/vnet"
)

// The reference does what Lower does in the plainest way, and shares nothing with it.

// internet is the checksum of RFC 1071, byte by byte.
func internet(pieces ...[]byte) uint16 {
	sum, high := 0, true
	for _, p := range pieces {
		for _, b := range p {
			if high {
				sum += int(b) << 8
			} else {
				sum += int(b)
			}
			high = !high
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

// recipe says what a test frame looks like.
type recipe struct {
	tags       int
	ip6        bool
	udp        bool
	options    int // bytes of options or extension headers of IP
	tcpOptions int
	flags      byte // of TCP
	payload    int
}

func (r recipe) network() int { return 14 + 4*r.tags }

func (r recipe) transport() int {
	if r.ip6 {
		return r.network() + 40 + r.options
	}
	return r.network() + 20 + r.options
}

func (r recipe) data() int {
	if r.udp {
		return r.transport() + 8
	}
	return r.transport() + 20 + r.tcpOptions
}

func (r recipe) field() int {
	if r.udp {
		return r.transport() + 6
	}
	return r.transport() + 16
}

func (r recipe) proto() int {
	if r.udp {
		return 17
	}
	return 6
}

// pseudo is the pseudo header of a packet whose transport part has n bytes.
func (r recipe) pseudo(frame []byte, n int) []byte {
	addresses := frame[r.network()+12:][:8]
	if r.ip6 {
		addresses = frame[r.network()+8:][:32]
	}
	return bytes.Join([][]byte{addresses, be16(r.proto()), be16(n)}, nil)
}

// frame makes a frame whose checksum is left undone, and the header that says so.
func (r recipe) frame(rnd *rand.Rand) ([]byte, vnet.Header) {
	f := make([]byte, r.data()+r.payload)
	for i := range f {
		f[i] = byte(rnd.Uint32())
	}
	f[0], f[6] = 0x02, 0x02
	at := 12
	for i := range r.tags {
		kind := 0x8100
		if i == 0 && r.tags == 2 {
			kind = 0x88a8
		}
		copy(f[at:], be16(kind))
		at += 4
	}
	ip := f[r.network():]
	if r.ip6 {
		copy(f[at:], be16(0x86dd))
		ip[0] = 0x60 | ip[0]&15
		copy(ip[4:], be16(len(f)-r.network()-40))
		ip[7], ip[24] = 64, 0x20 // not to a multicast address
		next := 6
		for left := r.options; left > 0; left -= 8 {
			ip[next] = 60
			if left == r.options {
				ip[next] = 0
			}
			next = 40 + r.options - left
			copy(ip[next:], []byte{0, 0, 1, 4, 0, 0, 0, 0}) // PadN
		}
		ip[next] = byte(r.proto())
	} else {
		copy(f[at:], be16(0x0800))
		ip[0] = 0x40 | byte(20+r.options)/4
		copy(ip[2:], be16(len(f)-r.network()))
		copy(ip[6:], be16(0x4000)) // do not fragment
		ip[8], ip[9] = 64, byte(r.proto())
		for i := range r.options {
			ip[20+i] = 1
		}
		copy(ip[10:], []byte{0, 0})
		copy(ip[10:], be16(int(internet(ip[:20+r.options]))))
	}
	l4 := f[r.transport():]
	h := vnet.Header{
		Flags:          vnet.FlagNeedsChecksum,
		ChecksumStart:  uint16(r.transport()),
		ChecksumOffset: uint16(r.field() - r.transport()),
		HeaderLen:      uint16(r.data()),
	}
	if r.udp {
		copy(l4[4:], be16(len(l4)))
		h.GSOType = vnet.GSOUDPL4
	} else {
		l4[12] = byte(20+r.tcpOptions) / 4 << 4
		l4[13] = r.flags
		for i := range r.tcpOptions {
			l4[20+i] = 1
		}
		h.GSOType = vnet.GSOTCP4
		if r.ip6 {
			h.GSOType = vnet.GSOTCP6
		}
	}
	copy(f[r.field():], be16(int(^internet(r.pseudo(f, len(l4))))))
	return f, h
}

// cut is the segments of a frame of this recipe.
func (r recipe) cut(frame []byte, size int) (segments [][]byte) {
	payload := frame[r.data():]
	for i := 0; i == 0 || i*size < len(payload); i++ {
		part := payload[i*size : min(len(payload), (i+1)*size)]
		s := append(append([]byte(nil), frame[:r.data()]...), part...)
		ip, l4 := s[r.network():], s[r.transport():]
		if r.ip6 {
			copy(ip[4:], be16(len(ip)-40))
		} else {
			copy(ip[2:], be16(len(ip)))
			copy(ip[4:], be16(int(binary.BigEndian.Uint16(ip[4:]))+i))
			copy(ip[10:], []byte{0, 0})
			copy(ip[10:], be16(int(internet(ip[:20+r.options]))))
		}
		if r.udp {
			copy(l4[4:], be16(len(l4)))
		} else {
			binary.BigEndian.PutUint32(l4[4:], binary.BigEndian.Uint32(l4[4:])+uint32(i*size))
			if (i+1)*size < len(payload) {
				l4[13] &= 0xff - 0x09
			}
			if i > 0 {
				l4[13] &= 0x7f
			}
		}
		copy(s[r.field():], []byte{0, 0})
		sum := internet(r.pseudo(s, len(l4)), l4)
		if sum == 0 {
			sum = 0xffff
		}
		copy(s[r.field():], be16(int(sum)))
		segments = append(segments, s)
	}
	return segments
}

// scatter cuts data into parts at random places, some of them empty.
func scatter(rnd *rand.Rand, data []byte) (parts [][]byte) {
	for len(data) > 0 {
		n := min(rnd.IntN(1+rnd.IntN(3000)), len(data))
		parts = append(parts, data[:n])
		data = data[n:]
	}
	return parts
}

// random makes a recipe and the size of its segments.
func random(rnd *rand.Rand) (r recipe, size int) {
	r = recipe{
		tags:       rnd.IntN(3),
		ip6:        rnd.IntN(2) == 0,
		udp:        rnd.IntN(2) == 0,
		options:    8 * rnd.IntN(4),
		tcpOptions: 4 * rnd.IntN(11),
		flags:      byte(rnd.Uint32()),
		payload:    rnd.IntN(10000),
	}
	if rnd.IntN(8) == 0 {
		r.payload = 65535 - 200 - rnd.IntN(3000)
	}
	return r, 64 + rnd.IntN(1+rnd.IntN(9000))
}
