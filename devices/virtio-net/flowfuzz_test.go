package virtionet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/fuzz/choice"
)

// FuzzFlow hashes frames with tags, options, extension headers and fragments, which are cut short
// and spoilt. A slow reading of the same bytes says what the hash is, and by which rule.
//
//fuzz:covers devices/virtio-net/flow.go devices/virtio-net/hash.go devices/virtio-net/toeplitz.go
func FuzzFlow(f *testing.F) {
	choice.Corpus(f, 800, 250)
	filter := newFilter(mac(1), spec.FeatureCtrlVQ|spec.FeatureCtrlRx|spec.FeatureCtrlVLAN)
	filter.modes[spec.RxPromisc] = false
	table := newToeplitz(microsoftKey)
	f.Fuzz(func(t *testing.T, program []byte) {
		src := choice.FromBytes(program)
		data, types := flowFrame(src), spec.HashAll
		if src.Bool() {
			types &= src.Uint32()
		}
		frame := cut(data, src.Intn(len(data)+1), src.Intn(len(data)+1))
		var h head
		var fl flow
		h.read(&frame)
		fl.parse(&h)
		want := spec.HashReport{}
		if kind, input := seen(data).hashed(types); kind > 0 {
			want = spec.HashReport{Value: bitwise(microsoftKey, input), Report: kind}
		}
		if got := (&hashing{types, table}).sum(&fl); got != want {
			t.Fatalf("% x is hashed as %+v, want %+v", data, got, want)
		}
		filter.pass(&h) // of so little of a frame as there may be
	})
}

// flowFrame makes a frame of IP, mostly.
func flowFrame(src *choice.Source) []byte {
	b := append(append([]byte{}, broadcast[:]...), "\x02\x00\x00\x00\x00\x02"...)
	for range choice.Pick(src, 0, 0, 0, 1, 2, 3) {
		b = binary.BigEndian.AppendUint16(b, choice.Pick[uint16](src, 0x8100, 0x8100, 0x88a8))
		b = append(b, src.Bytes(2)...)
	}
	next := choice.Pick[uint8](src, 6, 6, 17, 17, 1, src.Uint8())
	if src.Bool() {
		b = append(b, 0x08, 0x00)
		options := choice.Pick(src, 0, 0, 1, src.Intn(11))
		fragment := choice.Pick[uint16](src, 0, 0, 0x4000, 0x2000, 1, src.Uint16())
		b = append(b, 0x45+byte(options), 0, 0, 0, 0, 0, byte(fragment>>8), byte(fragment), 64, next, 0, 0)
		b = append(b, src.Bytes(8+4*options)...)
	} else {
		b = append(b, 0x86, 0xdd)
		kinds, headers := extensions(src, next)
		b = append(b, 0x60, 0, 0, 0, 0, 0, kinds[0], 64)
		b = append(append(b, src.Bytes(32)...), headers...)
	}
	b = append(b, src.Bytes(8+src.Intn(20))...)
	for range choice.Pick(src, 0, 0, 0, 1, 3) {
		b[src.Intn(len(b))] = choice.Pick(src, src.Uint8(), 0, 1, 2, 0xff)
	}
	if src.Odds(8) {
		b = b[:src.Intn(len(b)+1)]
	}
	return b
}

// extensions makes extension headers; kinds are theirs, and that of what follows.
func extensions(src *choice.Source, next uint8) (kinds, headers []byte) {
	for range choice.Pick(src, 0, 0, 1, 2, 4) {
		kinds = append(kinds, choice.Pick[uint8](src, 0, 43, 43, 44, 44, 51, 60, 60, 60, 135))
	}
	kinds = append(kinds, next)
	for i, kind := range kinds[:len(kinds)-1] {
		var body []byte
		switch kind {
		case 43:
			body = append([]byte{choice.Pick[uint8](src, 2, 2, 0, 4), src.Uint8()}, src.Bytes(choice.Pick(src, 20, 20, 4, 36))...)
		case 44:
			body = choice.Pick(src, []byte{0, 0, 0, 0, 0, 1}, []byte{0, 6, 0, 0, 0, 1}, []byte{0, 1, 0, 0, 0, 1}, src.Bytes(6))
		case 60:
			for range src.Intn(4) {
				body = append(body, choice.Pick(src, []byte{0}, []byte{1, 0}, []byte{1, 2, 0, 0}, []byte{0xc9, 4, 1, 2, 3, 4},
					append([]byte{0xc9, 16}, src.Bytes(16)...), append([]byte{0xc9, 16}, src.Bytes(16)...))...)
			}
			body = append(body, make([]byte, 8-(2+len(body))%8)...)
		default:
			body = src.Bytes(choice.Pick(src, 6, 14))
		}
		length := byte((2+len(body))/8 - 1)
		if kind == 51 {
			length = byte((2+len(body))/4 - 2)
		}
		if src.Odds(8) {
			length = src.Uint8()
		}
		headers = append(append(headers, kinds[i+1], length), body...)
	}
	return kinds, headers
}

// sight is what of a frame is hashed.
type sight struct {
	addresses []byte // source and destination; none: it is not IP
	mobile    []byte // the same as extension headers have it; none: there are none
	ports     []byte
	proto     byte // that of the ports
}

// seen looks at the first 128 bytes of a frame, which are all that the card looks at.
func seen(b []byte) (s sight) {
	b = b[:min(len(b), 128)]
	if len(b) < 14 {
		return s
	}
	kind, p := string(b[12:14]), b[14:]
	for range 2 {
		if (kind == "\x81\x00" || kind == "\x88\xa8") && len(p) >= 4 {
			kind, p = string(p[2:4]), p[4:]
		}
	}
	switch {
	case kind == "\x08\x00" && len(p) >= 20 && p[0]>>4 == 4 && p[0]&15 >= 5:
		s.addresses = p[12:20]
		if n := 4 * int(p[0]&15); p[6]&0x3f == 0 && p[7] == 0 && len(p) >= n {
			s.see(p[9], p[n:])
		}
	case kind == "\x86\xdd" && len(p) >= 40 && p[0]>>4 == 6:
		s.addresses = p[8:40]
		s.extended(p[6], p[40:])
	}
	return s
}

// see takes the ports, if there are such.
func (s *sight) see(proto byte, p []byte) {
	if (proto == 6 || proto == 17) && len(p) >= 4 {
		s.proto, s.ports = proto, p[:4]
	}
}

// extended follows extension headers, as far as all of each can be seen.
func (s *sight) extended(next byte, p []byte) {
	for next == 0 || next == 43 || next == 44 || next == 51 || next == 60 {
		if s.mobile == nil {
			s.mobile = bytes.Clone(s.addresses)
		}
		if len(p) < 8 {
			return
		}
		n := 8 + 8*int(p[1])
		switch next {
		case 44:
			if n = 8; p[2] != 0 || p[3]&0xf9 != 0 {
				return // one of several fragments
			}
		case 51:
			n = 8 + 4*int(p[1])
		}
		if len(p) < n {
			return
		}
		switch {
		case next == 43 && p[2] == 2 && n >= 24:
			copy(s.mobile[16:], p[8:24])
		case next == 60:
			if home := homeAddressOf(p[2:n]); home != nil {
				copy(s.mobile, home)
			}
		}
		next, p = p[0], p[n:]
	}
	s.see(next, p)
}

// homeAddressOf finds the option of a mobile node (RFC 6275, 6.3).
func homeAddressOf(options []byte) []byte {
	for len(options) >= 2 {
		switch n := 2 + int(options[1]); {
		case options[0] == 0:
			options = options[1:]
		case n > len(options):
			return nil
		case options[0] == 0xc9 && n == 18:
			return options[2:18]
		default:
			options = options[n:]
		}
	}
	return nil
}

// hashed is the first kind of hash of 5.1.6.4.3 that is enabled and fits, and its input.
func (s sight) hashed(types uint32) (report uint16, input []byte) {
	if s.addresses == nil {
		return 0, nil
	}
	type rule struct {
		addresses []byte
		report    uint16 // without ports; then with those of TCP, and of UDP
	}
	rules := []rule{{s.mobile, 7}, {s.addresses, 4}}
	if len(s.addresses) == 8 {
		rules = []rule{{s.addresses, 1}}
	}
	for _, r := range rules {
		enabled := func(report uint16) bool { return types>>(report-1)&1 == 1 }
		switch {
		case r.addresses == nil:
		case s.proto == 6 && enabled(r.report+1):
			return r.report + 1, append(bytes.Clone(r.addresses), s.ports...)
		case s.proto == 17 && enabled(r.report+2):
			return r.report + 2, append(bytes.Clone(r.addresses), s.ports...)
		case enabled(r.report):
			return r.report, r.addresses
		}
	}
	return 0, nil
}
