package pci

import (
	"errors"
	"slices"
	"syscall"
	"testing"
)

// chain walks the capabilities as a guest does.
func chain(t *testing.T, s *Space) (ids []uint32) {
	t.Helper()
	if read(t, s, 0x06, 2)&0x10 == 0 {
		return nil
	}
	for off := read(t, s, 0x34, 1); off != 0; off = read(t, s, int(off)+1, 1) {
		if off < 0x40 || off%4 != 0 || len(ids) > 48 {
			t.Fatalf("bad link to %#x", off)
		}
		ids = append(ids, read(t, s, int(off), 1))
	}
	return ids
}

func TestCapabilityChain(t *testing.T) {
	if ids := chain(t, newNVMe(t)); !slices.Equal(ids, []uint32{0x01, 0x05, 0x11, 0x10, 0x09}) {
		t.Errorf("chain %#x", ids)
	}
	bare, err := NewSpace(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if ids := chain(t, bare); ids != nil || read(t, bare, 0x34, 1) != 0 {
		t.Errorf("chain %#x of a function without capabilities", ids)
	}
}

func TestCapabilityThatDoesNotFit(t *testing.T) {
	s, err := NewSpace(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if off, err := s.AddVendor(make([]byte, 0x100-0x40-3)); err != nil || off != 0x40 {
		t.Fatalf("the largest that fits: %#x, %v", off, err)
	}
	before := dump(t, s)
	if _, err := s.AddPM(PM{}); !errors.Is(err, ErrNoRoom) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ErrNoRoom with ENOSPC", err)
	}
	if _, err := s.AddSerial(1); !errors.Is(err, ErrNoRoom) {
		t.Errorf("extended capability in a conventional space: got %v, want ErrNoRoom", err)
	}
	if _, err := s.AddVendor(make([]byte, 253)); !errors.Is(err, ErrConfig) {
		t.Errorf("vendor data beyond its length byte: got %v, want ErrConfig", err)
	}
	if dump(t, s) != before {
		t.Error("what was refused left traces")
	}
}

func TestCapabilitiesStandOnce(t *testing.T) {
	s := newNVMe(t)
	for name, add := range map[string]func() (int, error){
		"PM":      func() (int, error) { return s.AddPM(PM{}) },
		"MSI":     func() (int, error) { return s.AddMSI(MSI{Vectors: 1}) },
		"MSI-X":   func() (int, error) { return s.AddMSIX(MSIX{Vectors: 1, TableBAR: 4, PBABAR: 5}) },
		"Express": func() (int, error) { return s.AddExpress(Express{}) },
		"serial":  func() (int, error) { return s.AddSerial(1) },
	} {
		if _, err := add(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s twice: got %v, want ErrConfig", name, err)
		}
	}
	if _, err := s.AddVendor(nil); err != nil {
		t.Errorf("vendor-specific twice: %v", err)
	}
}

func TestExtendedCapabilityChain(t *testing.T) {
	s, err := NewSpace(Config{Express: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, 0x100, 4); got != 0 {
		t.Errorf("%#x at 0x100 of a function without any", got)
	}
	if off, err := s.AddSerial(0x1122334455667788); err != nil || off != 0x100 {
		t.Fatalf("%#x, %v", off, err)
	}
	if off, err := s.addExtended(0x000b, 1, 16); err != nil || off != 0x10c {
		t.Fatalf("%#x, %v", off, err)
	}
	for _, want := range [][2]uint32{
		{0x100, 0x10c10003}, {0x104, 0x55667788}, {0x108, 0x11223344}, {0x10c, 0x0001000b},
	} {
		if got := read(t, s, int(want[0]), 4); got != want[1] {
			t.Errorf("%#x at %#x, want %#x", got, want[0], want[1])
		}
	}
}

func TestMSIXControl(t *testing.T) {
	s := newNVMe(t)
	if got := read(t, s, s.msix+2, 2); got != 64 {
		t.Errorf("table size field %d, want vectors - 1", got)
	}
	if m, ok := s.MSIX(); !ok || m != (MSIX{Vectors: 65, TableBAR: 4, PBABAR: 5}) {
		t.Errorf("MSIX() = %+v, %v", m, ok)
	}
	if read(t, s, s.msix+4, 4) != 4 || read(t, s, s.msix+8, 4) != 5 {
		t.Error("table and PBA name the wrong BARs")
	}
	if c := write(t, s, s.msix+2, 2, 0xffff); c != ChangedMSIX {
		t.Errorf("changed %#x", c)
	}
	if got := read(t, s, s.msix+2, 2); got != 0xc040 {
		t.Errorf("control %#x: only enable and function mask are writable", got)
	}
	if !s.MSIXEnabled() || !s.MSIXFunctionMasked() {
		t.Error("enabled and masked")
	}
	write(t, s, s.msix+2, 2, 0x8000)
	if !s.MSIXEnabled() || s.MSIXFunctionMasked() {
		t.Error("enabled and not masked")
	}
}

func TestMSIXIsChecked(t *testing.T) {
	c := Config{BARs: [NumBARs]BAR{{Size: 4096, Type: Mem64}, {}, {Size: 256, Type: IO}}}
	for _, tt := range []struct {
		name string
		m    MSIX
		ok   bool
	}{
		{"both in one BAR", MSIX{Vectors: 128, PBAOffset: 0x800}, true},
		{"table fills the BAR up to the PBA", MSIX{Vectors: 128, TableOffset: 0x10, PBAOffset: 0}, true},
		{"no vectors", MSIX{PBAOffset: 0x800}, false},
		{"too many vectors", MSIX{Vectors: 2049, PBAOffset: 0x800}, false},
		{"table outside of its BAR", MSIX{Vectors: 200, TableOffset: 0x800}, false},
		{"PBA outside of its BAR", MSIX{Vectors: 65, PBAOffset: 0xff8}, false},
		{"table offset not a multiple of eight", MSIX{Vectors: 1, TableOffset: 4, PBAOffset: 0x800}, false},
		{"table and PBA overlap", MSIX{Vectors: 129, PBAOffset: 0x808}, false},
		{"table in the upper half of a 64-bit BAR", MSIX{Vectors: 1, TableBAR: 1}, false},
		{"table in an I/O BAR", MSIX{Vectors: 1, TableBAR: 2}, false},
		{"PBA in a BAR that does not exist", MSIX{Vectors: 1, PBABAR: 6}, false},
		{"negative BAR", MSIX{Vectors: 1, PBABAR: -1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSpace(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.AddMSIX(tt.m); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrConfig) {
				t.Errorf("got %v", err)
			}
		})
	}
}
