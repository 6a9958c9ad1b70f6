package pci

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func newTable(t testing.TB, vectors int) *MSIXTable {
	t.Helper()
	m, err := NewMSIXTable(vectors)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tableRead(t testing.TB, m *MSIXTable, off uint64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xaa}, n)
	if err := m.Read(off, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func tableWrite(t testing.TB, m *MSIXTable, off uint64, p ...byte) {
	t.Helper()
	if err := m.Write(off, p); err != nil {
		t.Fatal(err)
	}
}

func TestMSIXTableAtPowerOn(t *testing.T) {
	m := newTable(t, 3)
	for v := range m.Vectors() {
		if addr, data := m.Message(v); !m.Masked(v) || addr != 0 || data != 0 {
			t.Errorf("vector %d: masked %v, %#x to %#x", v, m.Masked(v), data, addr)
		}
	}
	for _, n := range []int{0, 2049, -1} {
		if _, err := NewMSIXTable(n); !errors.Is(err, ErrConfig) {
			t.Errorf("%d vectors: got %v, want ErrConfig", n, err)
		}
	}
}

func TestMSIXTableEntry(t *testing.T) {
	m := newTable(t, 2)
	tableWrite(t, m, 16, 0x07, 0x10, 0xe0, 0xfe, 1, 2, 3, 4, 0x21, 0x40, 0, 0, 0xfe, 0xff, 0xff, 0xff)
	if addr, data := m.Message(1); addr != 0x04030201_fee01004 || data != 0x4021 {
		t.Errorf("%#x to %#x", data, addr)
	}
	if m.Masked(1) || !m.Masked(0) {
		t.Error("vector 1 is unmasked, vector 0 is not")
	}
	if got := tableRead(t, m, 28, 4); !bytes.Equal(got, []byte{0, 0, 0, 0}) {
		t.Errorf("vector control % x: reserved bits stay 0", got)
	}
	m.Reset()
	if addr, _ := m.Message(1); !m.Masked(1) || addr != 0 {
		t.Error("reset masks and forgets")
	}
}

func TestMSIXTableReportsMaskChanges(t *testing.T) {
	m := newTable(t, 4)
	type change struct {
		vector int
		masked bool
	}
	var got []change
	m.OnMask = func(v int, masked bool) {
		if m.Masked(v) != masked {
			t.Error("the table differs from what is reported")
		}
		got = append(got, change{v, masked})
	}
	tableWrite(t, m, 12, 1)                   // masked already
	tableWrite(t, m, 12, 0)                   // unmask 0
	tableWrite(t, m, 8, 1, 2, 3, 4)           // data only
	tableWrite(t, m, 16, make([]byte, 48)...) // unmask 1 to 3
	tableWrite(t, m, 44, 1, 0, 0, 0)          // mask 2
	want := []change{{0, false}, {1, false}, {2, false}, {3, false}, {2, true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMSIXTableServesALargerBAR(t *testing.T) {
	m := newTable(t, 1)
	tableWrite(t, m, 8, 1, 2, 3, 4, 0, 9, 9, 9, 9, 9)
	if got := tableRead(t, m, 8, 10); !bytes.Equal(got, []byte{1, 2, 3, 4, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("across the end: % x", got)
	}
	tableWrite(t, m, 16, 1)
	tableWrite(t, m, ^uint64(0), 1)
	if got := tableRead(t, m, ^uint64(0), 2); !bytes.Equal(got, []byte{0, 0}) {
		t.Errorf("behind the end: % x", got)
	}
}

func TestPendingBits(t *testing.T) {
	m := newTable(t, 70)
	pba := func(off uint64, n int) []byte {
		p := bytes.Repeat([]byte{0xaa}, n)
		if err := m.ReadPBA(off, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if got := pba(0, 16); !bytes.Equal(got, make([]byte, 16)) {
		t.Errorf("% x without a source", got)
	}
	m.Pending = func(v int) bool {
		if v < 0 || v >= 70 {
			t.Errorf("asked for vector %d", v)
		}
		return v == 1 || v == 63 || v == 64 || v == 69
	}
	if got, want := pba(0, 16), []byte{2, 0, 0, 0, 0, 0, 0, 0x80, 0x21, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	if got := pba(7, 2); !bytes.Equal(got, []byte{0x80, 0x21}) {
		t.Errorf("unaligned: % x", got)
	}
	if got := pba(^uint64(0), 1); got[0] != 0 {
		t.Errorf("behind the end: % x", got)
	}
}

func TestMSIXSizes(t *testing.T) {
	for _, tt := range [][3]int{{1, 16, 8}, {64, 1024, 8}, {65, 1040, 16}, {2048, 32768, 256}} {
		m := MSIX{Vectors: tt[0]}
		if m.TableSize() != tt[1] || m.PBASize() != tt[2] {
			t.Errorf("%d vectors: table %d, PBA %d bytes", tt[0], m.TableSize(), m.PBASize())
		}
	}
}
