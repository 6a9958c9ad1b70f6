package pci

import (
	"bytes"
	"errors"
	"testing"
)

func TestWindow(t *testing.T) {
	s := newSpace(t, Config{})
	off := added(t)(s.AddRaw(RawCapability{ID: 0x09, Data: []byte{12, 5, 1, 2, 3, 4, 5, 6, 7, 8},
		Masks: Masks{Writable: []byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f}}}))
	reads, count := 0, byte(0)
	var written [][]byte
	w := Window{
		Read: func(p []byte) {
			reads++
			count++
			p[0], p[3] = count, 0xee
		},
		Written: func(p []byte) {
			// The rest of the space may be used.
			var other [4]byte
			if err := s.Read(off+4, other[:]); err != nil {
				t.Error(err)
			}
			written = append(written, append(other[:], p...))
		},
	}
	if err := s.AddWindow(off+8, 4, w); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, n int
		want   []byte
		reads  int
	}{
		{4, 4, []byte{1, 2, 3, 4}, 0},
		{8, 4, []byte{1, 6, 7, 0xee}, 1},
		{8, 1, []byte{2}, 2},
		{11, 1, []byte{0xee}, 3},
		{7, 2, []byte{4, 4}, 4},
	} {
		if got := bytesAt(t, s, off+c.off, c.n); !bytes.Equal(got, c.want) || reads != c.reads {
			t.Errorf("%d bytes at %d: % x after %d reads, want % x after %d", c.n, c.off, got, reads, c.want, c.reads)
		}
	}
	for _, c := range []struct {
		off  int
		p    []byte
		want []byte
	}{
		{4, []byte{9, 9, 9, 9}, nil},
		{8, []byte{0xf1, 0xf2, 0xf3, 0xf4}, []byte{9, 9, 9, 9, 0xf1, 0xf2, 0x03, 0xee}},
		{9, []byte{0xaa}, []byte{9, 9, 9, 9, 0xf1, 0xaa, 0x03, 0xee}},
		{6, []byte{7, 7, 7}, []byte{9, 9, 7, 7, 0x07, 0xaa, 0x03, 0xee}},
	} {
		written = nil
		if _, err := s.Write(off+c.off, c.p); err != nil {
			t.Fatal(err)
		}
		if c.want == nil && len(written) == 0 {
			continue
		}
		if len(written) != 1 || !bytes.Equal(written[0], c.want) {
			t.Errorf("% x at %d told as % x, want % x", c.p, c.off, written, c.want)
		}
	}
}

func TestWindowsThatAreRefused(t *testing.T) {
	s := newSpace(t, Config{})
	off := added(t)(s.AddVendor(make([]byte, 13))) // 16 bytes
	good := Window{Read: func([]byte) {}, Written: func([]byte) {}}
	if err := s.AddWindow(off+8, 4, good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		off, n int
		w      Window
		want   error
	}{
		{"without Read", off, 4, Window{Written: good.Written}, ErrConfig},
		{"without Written", off, 4, Window{Read: good.Read}, ErrConfig},
		{"empty", off, 0, good, ErrConfig},
		{"outside of the space", SpaceSize - 2, 4, good, ErrRange},
		{"outside of the capability", off + 14, 4, good, ErrConfig},
		{"in the header", 0, 4, good, ErrConfig},
		{"twice", off + 11, 1, good, ErrConfig},
	} {
		if err := s.AddWindow(c.off, c.n, c.w); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
