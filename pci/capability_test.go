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
	if _, err := s.AddPM(); !errors.Is(err, ErrNoRoom) || !errors.Is(err, syscall.ENOSPC) {
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
		"PM":      s.AddPM,
		"MSI":     func() (int, error) { return s.AddMSI(1, false) },
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

func TestPowerManagement(t *testing.T) {
	s := newNVMe(t)
	ctl := s.pm + pmControl
	for _, tt := range []struct {
		write   uint32
		state   int
		changed Changed
	}{
		{3, D3hot, ChangedPM},
		{3, D3hot, 0},
		{1, D3hot, 0}, // D1 is not there: discarded
		{0, D0, ChangedPM},
		{2, D0, 0}, // nor is D2
		{0xffff, D3hot, ChangedPM},
	} {
		if c := write(t, s, ctl, 2, tt.write); c != tt.changed {
			t.Errorf("writing %#x changed %#x, want %#x", tt.write, c, tt.changed)
		}
		if got := s.PowerState(); got != tt.state {
			t.Errorf("D%d after writing %#x, want D%d", got, tt.write, tt.state)
		}
	}
	if got := read(t, s, ctl, 2); got != 0x000b {
		t.Errorf("control %#x, want D3hot and No_Soft_Reset", got)
	}
	without, err := NewSpace(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if without.PowerState() != D0 {
		t.Error("a function without power management is in D0")
	}
}

func TestMSI(t *testing.T) {
	s := newNVMe(t)
	if s.MSIEnabled() || s.MSIVectors() != 0 {
		t.Error("MSI is on at power-on")
	}
	if c := write(t, s, s.msi+msiControl, 2, 1|3<<4); c != ChangedMSI {
		t.Errorf("changed %#x", c)
	}
	if !s.MSIEnabled() || s.MSIVectors() != 8 {
		t.Errorf("enabled %v with %d vectors, want 8", s.MSIEnabled(), s.MSIVectors())
	}
	write(t, s, s.msi+msiControl, 2, 1|7<<4)
	if s.MSIVectors() != 32 {
		t.Errorf("%d vectors granted of 32", s.MSIVectors())
	}
	write(t, s, s.msi+msiAddress, 4, 0xfee01003)
	if got := read(t, s, s.msi+msiAddress, 4); got != 0xfee01000 {
		t.Errorf("address %#x is not a multiple of four", got)
	}
	if c := write(t, s, s.msi+msiMask, 4, 0x80000001); c != ChangedMSI || s.MSIMask() != 0x80000001 {
		t.Errorf("mask %#x, changed %#x", s.MSIMask(), c)
	}
	s.SetMSIPending(6)
	write(t, s, s.msi+msiPending, 4, 0)
	if got := read(t, s, s.msi+msiPending, 4); got != 6 {
		t.Errorf("pending %#x, want 6: the guest cannot write it", got)
	}
}

func TestMSIWithoutMask(t *testing.T) {
	s, err := NewSpace(Config{})
	if err != nil {
		t.Fatal(err)
	}
	off, err := s.AddMSI(4, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, off+2, 2); got != 0x0084 {
		t.Errorf("control %#x, want four 64-bit messages", got)
	}
	s.SetMSIPending(1)
	write(t, s, off+msiMask, 4, 1)
	if s.MSIMask() != 0 || read(t, s, off+msiMask, 4) != 0 {
		t.Error("there is no mask to write")
	}
	for _, n := range []int{0, 3, 64} {
		other, err := NewSpace(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.AddMSI(n, false); !errors.Is(err, ErrConfig) {
			t.Errorf("%d vectors: got %v, want ErrConfig", n, err)
		}
	}
}

func TestMSIXControl(t *testing.T) {
	s := newNVMe(t)
	if got := read(t, s, s.msix+2, 2); got != 64 {
		t.Errorf("table size field %d, want vectors - 1", got)
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

func TestExpressDeviceControl(t *testing.T) {
	s := newNVMe(t)
	write(t, s, s.express+expDeviceCtl, 2, 0xffff)
	if got := read(t, s, s.express+expDeviceCtl, 2); got != 0x79ff {
		t.Errorf("device control %#x, want 0x79ff: the reset bit reads 0", got)
	}
	s.now[s.express+expDeviceSta] = 0x2f
	write(t, s, s.express+expDeviceSta, 2, 0xffff)
	if got := read(t, s, s.express+expDeviceSta, 2); got != 0x20 {
		t.Errorf("device status %#x, want 0x20: errors cleared, pending kept", got)
	}
}

func TestFunctionLevelReset(t *testing.T) {
	s := newNVMe(t)
	ctl := s.express + expDeviceCtl
	if c := write(t, s, ctl, 2, 0xa810); c != RequestedReset {
		t.Errorf("16-bit write asks for %#x", c)
	}
	if c := write(t, s, ctl+1, 1, 0xa8); c != RequestedReset {
		t.Errorf("8-bit write asks for %#x", c)
	}
	if c := write(t, s, ctl, 1, 0x90); c&RequestedReset != 0 {
		t.Error("a write of the lower byte asks for a reset")
	}
	if c := write(t, s, ctl, 2, 0x2810); c&RequestedReset != 0 {
		t.Error("a write without the bit asks for a reset")
	}
	plain, err := NewSpace(Config{Express: true})
	if err != nil {
		t.Fatal(err)
	}
	off, err := plain.AddExpress(Express{})
	if err != nil {
		t.Fatal(err)
	}
	if c := write(t, plain, off+expDeviceCtl, 2, 0xa810); c != 0 {
		t.Errorf("a function without FLR: changed %#x", c)
	}
}

func TestExpressLink(t *testing.T) {
	for _, tt := range []struct {
		name            string
		e               Express
		linkCap, speeds uint32
	}{
		{"default is 8 GT/s, four lanes", Express{}, 0x400043, 0x0e},
		{"2.5 GT/s, one lane", Express{Speed: Speed2_5GT, Lanes: 1}, 0x400011, 0x02},
		{"32 GT/s, sixteen lanes", Express{Speed: Speed32GT, Lanes: 16}, 0x400105, 0x3e},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSpace(Config{Express: true})
			if err != nil {
				t.Fatal(err)
			}
			off, err := s.AddExpress(tt.e)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, s, off+expLinkCap, 4); got != tt.linkCap {
				t.Errorf("link capabilities %#x, want %#x", got, tt.linkCap)
			}
			if got := read(t, s, off+expLinkCap2, 4); got != tt.speeds {
				t.Errorf("speeds %#x, want %#x", got, tt.speeds)
			}
			if got, want := read(t, s, off+expLinkSta, 2)&0x3ff, tt.linkCap&0x3ff; got != want {
				t.Errorf("link runs at %#x of %#x", got, want)
			}
		})
	}
}

func TestExpressIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name    string
		express bool
		e       Express
	}{
		{"conventional space", false, Express{}},
		{"unknown speed", true, Express{Speed: 6}},
		{"three lanes", true, Express{Lanes: 3}},
		{"32 lanes", true, Express{Lanes: 32}},
		{"negative lanes", true, Express{Lanes: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSpace(Config{Express: tt.express})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.AddExpress(tt.e); !errors.Is(err, ErrConfig) {
				t.Errorf("got %v, want ErrConfig", err)
			}
		})
	}
}
