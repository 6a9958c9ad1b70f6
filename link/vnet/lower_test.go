package vnet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"vfiouser/link/vnet"
)

// lower runs Lower and keeps what comes out, whole.
func lower(s *vnet.Scratch, data []byte, parts [][]byte, h vnet.Header, can vnet.Offloads) (frames [][]byte, headers []vnet.Header, r vnet.Reason) {
	f := vnet.Frame{Header: h, Parts: parts, Len: len(data)}
	r = s.Lower(&f, can, func(batch []vnet.Frame) bool {
		for i := range batch {
			whole := bytes.Join(batch[i].Parts, nil)
			if len(whole) != batch[i].Len {
				panic("Len is not that of the parts")
			}
			frames, headers = append(frames, whole), append(headers, batch[i].Header)
		}
		return true
	})
	return frames, headers, r
}

func TestSegmentsAreThoseOfTheReference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s vnet.Scratch
	for n := range 700 {
		r, size := random(rnd)
		data, h := r.frame(rnd)
		h.GSOSize = uint16(size)
		before := append([]byte(nil), data...)
		parts := scatter(rnd, data)
		want := r.cut(data, size)

		got, headers, reason := lower(&s, data, parts, h, vnet.OffloadNone)
		if reason != vnet.ReasonNone || len(got) != len(want) {
			t.Fatalf("%d: %+v, %d a segment: %v, %d segments, want %d", n, r, size, reason, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%d: %+v, %d a segment: number %d of %d is\n%x, want\n%x", n, r, size, i, len(got), got[i], want[i])
			}
			if headers[i] != (vnet.Header{}) {
				t.Fatalf("%d: a finished segment with the header %+v", n, headers[i])
			}
		}

		// A receiver that can sum gets the same segments and finishes them.
		got, headers, reason = lower(&s, data, parts, h, vnet.OffloadChecksum)
		if reason != vnet.ReasonNone || len(got) != len(want) {
			t.Fatalf("%d: %+v, without checksums: %v, %d segments, want %d", n, r, reason, len(got), len(want))
		}
		for i := range got {
			if headers[i].Needs() != vnet.OffloadChecksum {
				t.Fatalf("%d: a segment without checksum has the header %+v", n, headers[i])
			}
			whole, _, reason := lower(&s, got[i], scatter(rnd, got[i]), headers[i], vnet.OffloadNone)
			if reason != vnet.ReasonNone || len(whole) != 1 || !bytes.Equal(whole[0], want[i]) {
				t.Fatalf("%d: %+v, %d a segment: number %d, finished by its receiver (%v), is\n%x, want\n%x",
					n, r, size, i, reason, whole, want[i])
			}
		}
		if !bytes.Equal(data, before) {
			t.Fatalf("%d: the sender's memory was changed", n)
		}
	}
}

func TestAFrameIsHandedOnAsItIsToWhoCanFinishIt(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var s vnet.Scratch
	tcp4, tcp6, udp := recipe{payload: 5000}, recipe{ip6: true, payload: 5000}, recipe{udp: true, payload: 5000}
	for _, c := range []struct {
		name    string
		recipe  recipe
		ecn     bool
		can     vnet.Offloads
		handled bool
	}{
		{"TCP over IPv4", tcp4, false, vnet.OffloadChecksum | vnet.OffloadTSO4, true},
		{"TCP over IPv4 to one that knows IPv6", tcp4, false, vnet.OffloadChecksum | vnet.OffloadTSO6, false},
		{"TCP over IPv4 to one that cannot sum", tcp4, false, vnet.OffloadTSO4, false},
		{"TCP over IPv6", tcp6, false, vnet.OffloadChecksum | vnet.OffloadTSO6, true},
		{"TCP with ECN", tcp4, true, vnet.OffloadChecksum | vnet.OffloadTSO4 | vnet.OffloadECN, true},
		{"TCP with ECN to one that does not know it", tcp4, true, vnet.OffloadChecksum | vnet.OffloadTSO4, false},
		{"UDP", udp, false, vnet.OffloadChecksum | vnet.OffloadUSO4 | vnet.OffloadUSO6, true},
		{"UDP to one that cannot", udp, false, vnet.OffloadAll &^ (vnet.OffloadUSO4 | vnet.OffloadUSO6), false},
	} {
		data, h := c.recipe.frame(rnd)
		h.GSOSize = 1000
		if c.ecn {
			h.GSOType |= vnet.GSOECN
		}
		got, headers, r := lower(&s, data, [][]byte{data}, h, c.can)
		switch {
		case r != vnet.ReasonNone:
			t.Errorf("%s: %v", c.name, r)
		case c.handled && (len(got) != 1 || headers[0] != h || !bytes.Equal(got[0], data)):
			t.Errorf("%s: not as it was: %d frames, header %+v", c.name, len(got), headers)
		case !c.handled && len(got) != 5:
			t.Errorf("%s: %d frames, want 5 segments", c.name, len(got))
		}
	}
}

func TestDataValidIsForThoseWhoAskedForChecksums(t *testing.T) {
	var s vnet.Scratch
	data := make([]byte, 60)
	valid := vnet.Header{Flags: vnet.FlagDataValid}
	if _, h, _ := lower(&s, data, [][]byte{data}, valid, vnet.OffloadChecksum); h[0] != valid {
		t.Errorf("header %+v", h)
	}
	if _, h, _ := lower(&s, data, [][]byte{data}, valid, vnet.OffloadNone); h[0] != (vnet.Header{}) {
		t.Errorf("header %+v, flags must be zero", h)
	}
}

func TestALoneChecksumIsFilledIn(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var s vnet.Scratch
	for n := range 1000 {
		data := make([]byte, 14+rnd.IntN(2000)+2)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		start := 14 + rnd.IntN(len(data)-15)
		offset := rnd.IntN(len(data) - start - 1)
		h := vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: uint16(start), ChecksumOffset: uint16(offset)}
		want := append([]byte(nil), data...)
		copy(want[start+offset:], be16(int(internet(data[start:]))))
		got, headers, r := lower(&s, data, scatter(rnd, data), h, vnet.OffloadNone)
		if r != vnet.ReasonNone || len(got) != 1 || headers[0] != (vnet.Header{}) || !bytes.Equal(got[0], want) {
			t.Fatalf("%d: %d bytes, start %d, offset %d: %v\n%x, want\n%x", n, len(data), start, offset, r, got, want)
		}
	}
}

// A checksum of 0 says in UDP that there is none.
func TestAChecksumIsNeverZero(t *testing.T) {
	var s vnet.Scratch
	data := make([]byte, 60)
	data[20], data[21] = 0xff, 0xff
	got, _, _ := lower(&s, data, [][]byte{data}, vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 14, ChecksumOffset: 30}, 0)
	if sum := got[0][44:46]; !bytes.Equal(sum, []byte{0xff, 0xff}) {
		t.Errorf("checksum %x", sum)
	}
}

// The destination that goes into the sum is the last one, which a routing header hides.
func TestTheSumOfARoutedPacketIsItsSenders(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	r := recipe{ip6: true, udp: true, options: 24, payload: 3000}
	data, h := r.frame(rnd)
	h.GSOSize = 1000
	ip := data[r.network():]
	ip[6] = 43
	copy(ip[40:], []byte{17, 2, 2, 1, 0, 0, 0, 0}) // type 2, one segment left
	last := ip[48:64]
	copy(last, "another address.")
	pseudo := func(l4 []byte) []byte {
		return bytes.Join([][]byte{ip[8:24], last, be16(17), be16(len(l4))}, nil)
	}
	copy(data[r.field():], be16(int(^internet(pseudo(data[r.transport():])))))
	var s vnet.Scratch
	got, _, reason := lower(&s, data, [][]byte{data}, h, vnet.OffloadNone)
	if reason != vnet.ReasonNone || len(got) != 3 {
		t.Fatalf("%v, %d segments", reason, len(got))
	}
	for i, f := range got {
		if l4 := f[r.transport():]; internet(pseudo(l4), l4) != 0 {
			t.Errorf("segment %d has a wrong checksum", i)
		}
	}
}

func TestLowerStopsWhenTold(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	data, h := recipe{payload: 60000}.frame(rnd)
	h.GSOSize = 500
	var s vnet.Scratch
	calls, seen := 0, 0
	f := vnet.Frame{Header: h, Parts: [][]byte{data}, Len: len(data)}
	s.Lower(&f, vnet.OffloadNone, func(frames []vnet.Frame) bool {
		calls, seen = calls+1, seen+len(frames)
		return calls < 2
	})
	if calls != 2 || seen != 64 {
		t.Errorf("%d calls, %d segments", calls, seen)
	}
}
