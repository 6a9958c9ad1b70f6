package pci

import (
	"bytes"
	"errors"
	"testing"
)

func bytesAt(t testing.TB, s *Space, off, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if err := s.Read(off, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRawCapability(t *testing.T) {
	s := newSpace(t, Config{})
	off := added(t)(s.AddRaw(RawCapability{ID: 0x03, Data: []byte{0x10, 0x80, 1, 2, 3, 4},
		Masks: Masks{Writable: []byte{0xff, 0x7f, 0x0f}, Clear: []byte{0, 0, 0xf0}}}))
	if got := bytesAt(t, s, off, 8); !bytes.Equal(got, []byte{0x03, 0, 0x10, 0x80, 1, 2, 3, 4}) {
		t.Errorf("% x", got)
	}
	if err := s.Set(off+4, []byte{0xf1}); err != nil {
		t.Fatal(err)
	}
	c, err := s.Write(off, []byte{9, 9, 0x55, 0x55, 0x3c, 0xff, 0xff, 0xff})
	if err != nil || c != ChangedCapability {
		t.Errorf("changed %#x, %v", c, err)
	}
	if got := bytesAt(t, s, off, 8); !bytes.Equal(got, []byte{0x03, 0, 0x55, 0xd5, 0xcc, 2, 3, 4}) {
		t.Errorf("% x after a write", got)
	}
	s.Reset()
	if got := bytesAt(t, s, off, 8); !bytes.Equal(got, []byte{0x03, 0, 0x10, 0x80, 1, 2, 3, 4}) {
		t.Errorf("% x after a reset", got)
	}
}

func TestRawExtendedCapability(t *testing.T) {
	s := newSpace(t, Config{Express: true})
	off := added(t)(s.AddRawExtended(RawExtended{ID: 0x19, Version: 2, Data: []byte{1, 2, 3, 4},
		Masks: Masks{Writable: []byte{0xff}}}))
	write(t, s, off, 4, ^uint32(0))
	write(t, s, off+4, 4, ^uint32(0))
	if got := bytesAt(t, s, off, 8); !bytes.Equal(got, []byte{0x19, 0, 2, 0, 0xff, 2, 3, 4}) {
		t.Errorf("% x", got)
	}
}

func TestVendorExtendedCapability(t *testing.T) {
	s := newSpace(t, Config{Express: true})
	off := added(t)(s.AddVendorExtended(VendorExtended{ID: 0x1234, Revision: 5, Data: []byte("abc"),
		Masks: Masks{Writable: []byte{0, 0xff}}}))
	write(t, s, off+4, 4, 0)
	write(t, s, off+8, 4, 0)
	if got := bytesAt(t, s, off, 11); !bytes.Equal(got, []byte{0x0b, 0, 1, 0, 0x34, 0x12, 0xb5, 0, 'a', 0, 'c'}) {
		t.Errorf("% x", got)
	}
}

func TestDesignatedVendorCapability(t *testing.T) {
	s := newSpace(t, Config{Express: true})
	off := added(t)(s.AddDVSEC(DVSEC{Vendor: 0x1e98, ID: 8, Revision: 1, Data: []byte{1, 2},
		Masks: Masks{Clear: []byte{0, 0xff}}}))
	write(t, s, off+8, 4, ^uint32(0))
	if got := bytesAt(t, s, off, 12); !bytes.Equal(got, []byte{0x23, 0, 1, 0, 0x98, 0x1e, 0xc1, 0, 8, 0, 1, 0}) {
		t.Errorf("% x", got)
	}
}

func TestRawCapabilitiesAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		add  func(s *Space) (int, error)
	}{
		{"power management by bytes", func(s *Space) (int, error) { return s.AddRaw(RawCapability{ID: 0x01, Data: make([]byte, 6)}) }},
		{"MSI by bytes", func(s *Space) (int, error) { return s.AddRaw(RawCapability{ID: 0x05, Data: make([]byte, 8)}) }},
		{"Express by bytes", func(s *Space) (int, error) { return s.AddRaw(RawCapability{ID: 0x10, Data: make([]byte, 8)}) }},
		{"MSI-X by bytes", func(s *Space) (int, error) { return s.AddRaw(RawCapability{ID: 0x11, Data: make([]byte, 8)}) }},
		{"vendor-specific without its length", func(s *Space) (int, error) { return s.AddRaw(RawCapability{ID: 0x09}) }},
		{"vendor-specific with another length", func(s *Space) (int, error) { return s.AddRaw(RawCapability{ID: 0x09, Data: []byte{5}}) }},
		{"mask longer than the data", func(s *Space) (int, error) {
			return s.AddRaw(RawCapability{ID: 0x03, Data: []byte{1}, Masks: Masks{Writable: []byte{1, 1}}})
		}},
		{"a bit stored and cleared", func(s *Space) (int, error) {
			return s.AddRaw(RawCapability{ID: 0x03, Data: []byte{1}, Masks: Masks{Writable: []byte{3}, Clear: []byte{2}}})
		}},
		{"extended, version of five bits", func(s *Space) (int, error) { return s.AddRawExtended(RawExtended{ID: 1, Version: 16}) }},
		{"extended, mask longer than the data", func(s *Space) (int, error) {
			return s.AddRawExtended(RawExtended{ID: 1, Masks: Masks{Clear: []byte{1}}})
		}},
		{"VSEC, revision of five bits", func(s *Space) (int, error) { return s.AddVendorExtended(VendorExtended{Revision: 16}) }},
		{"VSEC longer than its length field", func(s *Space) (int, error) {
			return s.AddVendorExtended(VendorExtended{Data: make([]byte, 4096)})
		}},
		{"DVSEC, mask longer than the data", func(s *Space) (int, error) {
			return s.AddDVSEC(DVSEC{Masks: Masks{Writable: []byte{1}}})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpace(t, Config{Express: true})
			before := dump(t, s)
			if _, err := tt.add(s); !errors.Is(err, ErrConfig) {
				t.Errorf("got %v, want ErrConfig", err)
			}
			if dump(t, s) != before {
				t.Error("what was refused left traces")
			}
		})
	}
}

func TestVendorSpecificThatCanBeWritten(t *testing.T) {
	s := newSpace(t, Config{})
	off := added(t)(s.AddRaw(RawCapability{ID: 0x09, Data: []byte{5, 1, 2}, Masks: Masks{Writable: []byte{0, 0xff}}}))
	write(t, s, off+2, 2, 0)
	if got := bytesAt(t, s, off, 5); !bytes.Equal(got, []byte{9, 0, 5, 0, 2}) {
		t.Errorf("% x", got)
	}
}

// The list has the order of adding; what has no place of its own goes into the first gap.
func TestPlacedCapabilities(t *testing.T) {
	s := newSpace(t, Config{Express: true})
	for _, tt := range []struct {
		at, size, want int
	}{{0x80, 16, 0x80}, {0x50, 16, 0x50}, {0, 16, 0x40}, {0, 20, 0x60}, {0, 13, 0x90}, {0xf0, 16, 0xf0}} {
		if off := added(t)(s.Place(tt.at).AddVendor(make([]byte, tt.size-3))); off != tt.want {
			t.Errorf("%d bytes at %#x, want %#x", tt.size, off, tt.want)
		}
	}
	link := read(t, s, 0x34, 1)
	for _, want := range []uint32{0x80, 0x50, 0x40, 0x60, 0x90, 0xf0, 0} {
		if link != want {
			t.Fatalf("linked to %#x, want %#x", link, want)
		}
		link = read(t, s, int(link)+1, 1)
	}
	added(t)(s.Place(0x100).AddSerial(1))
	added(t)(s.Place(0x400).AddVendorExtended(VendorExtended{}))
	if off := added(t)(s.AddVendorExtended(VendorExtended{})); off != 0x10c {
		t.Errorf("extended capability at %#x, want the gap at 0x10c", off)
	}
	if a, b := read(t, s, 0x100, 4)>>20, read(t, s, 0x400, 4)>>20; a != 0x400 || b != 0x10c {
		t.Errorf("extended list leads to %#x and %#x", a, b)
	}
}

func TestPlacesAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name     string
		at       int
		extended bool
		kind     error
	}{
		{"in the header", 0x3c, false, ErrConfig},
		{"negative", -4, false, ErrConfig},
		{"not a multiple of four", 0x82, false, ErrConfig},
		{"standard capability in extended space", 0x100, false, ErrConfig},
		{"over another", 0x44, false, ErrNoRoom},
		{"across the next", 0x3c + 4, false, ErrNoRoom},
		{"across the end", 0xfc, false, ErrNoRoom},
		{"extended capability in standard space", 0x80, true, ErrConfig},
		{"first extended capability elsewhere", 0x104, true, ErrConfig},
		{"behind the end", 0x1000, true, ErrConfig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpace(t, Config{Express: true})
			added(t)(s.Place(0x44).AddPM(PM{}))
			before := dump(t, s)
			add := func() (int, error) { return s.AddMSI(MSI{Vectors: 1}) }
			if tt.extended {
				add = func() (int, error) { return s.AddSerial(1) }
			}
			s.Place(tt.at)
			if _, err := add(); !errors.Is(err, tt.kind) {
				t.Errorf("got %v, want %v", err, tt.kind)
			}
			if dump(t, s) != before {
				t.Error("what was refused left traces")
			}
		})
	}
}

func TestSetIsChecked(t *testing.T) {
	s := newSpace(t, Config{})
	for _, off := range []int{-1, 255, 256} {
		if err := s.Set(off, []byte{1, 2}); !errors.Is(err, ErrRange) {
			t.Errorf("at %d: got %v, want ErrRange", off, err)
		}
	}
}
