package pci

import (
	"errors"
	"testing"
)

// newExpress has the capability that others need.
func newExpress(t testing.TB) *Space {
	t.Helper()
	s := newSpace(t, Config{Express: true})
	added(t)(s.AddExpress(Express{}))
	return s
}

func TestAdvancedErrorReporting(t *testing.T) {
	s := newExpress(t)
	off := added(t)(s.AddAER())
	for i := off + 4; i < off+aerSize; i += 4 {
		before := read(t, s, i, 4)
		write(t, s, i, 4, ^uint32(0))
		after := map[int]uint32{ // what is writable
			off + 0x08: 0x17f010, off + 0x0c: 0x17f010, off + 0x14: 0x31c1,
		}[i]
		initial := map[int]uint32{off + 0x0c: 0x62010, off + 0x14: 0x2000}[i]
		if got := read(t, s, i, 4); before != initial || got != after {
			t.Errorf("register %#x: %#x, then %#x; want %#x, then %#x", i-off, before, got, initial, after)
		}
	}
	// An unsupported request, shown by the device and cleared by the guest.
	if err := s.Set(off+6, []byte{0x10}); err != nil {
		t.Fatal(err)
	}
	write(t, s, off+4, 4, 0x4000)
	if got := read(t, s, off+4, 4); got != 0x100000 {
		t.Errorf("status %#x after clearing another error", got)
	}
	if c := write(t, s, off+4, 4, 0x100000); c != ChangedCapability || read(t, s, off+4, 4) != 0 {
		t.Errorf("status %#x after clearing it, changed %#x", read(t, s, off+4, 4), c)
	}
}

func TestAlternativeRoutingID(t *testing.T) {
	s := newExpress(t)
	off := added(t)(s.AddARI(7))
	write(t, s, off+4, 4, ^uint32(0))
	if got := read(t, s, off+4, 4); got != 0x0700 {
		t.Errorf("%#x, want the next function and nothing writable", got)
	}
}

func TestLatencyTolerance(t *testing.T) {
	s := newExpress(t)
	off := added(t)(s.AddLTR())
	write(t, s, off+4, 4, ^uint32(0))
	if got := read(t, s, off+4, 4); got != 0x1fff1fff {
		t.Errorf("%#x writable, want value and scale twice", got)
	}
	if got := read(t, s, s.express+expDeviceCap2, 4); got&0x800 == 0 {
		t.Errorf("device capabilities 2 %#x do not say so", got)
	}
	write(t, s, s.express+expDeviceCtl2, 2, 0x0400)
	if got := read(t, s, s.express+expDeviceCtl2, 2); got != 0x0400 {
		t.Errorf("device control 2 %#x: it cannot be enabled", got)
	}
}

func TestExtendedCapabilitiesNeedExpress(t *testing.T) {
	for name, add := range map[string]func(*Space) (int, error){
		"AER": (*Space).AddAER,
		"ARI": func(s *Space) (int, error) { return s.AddARI(0) },
		"LTR": (*Space).AddLTR,
	} {
		s := newSpace(t, Config{Express: true})
		if _, err := add(s); !errors.Is(err, ErrConfig) {
			t.Errorf("%s without AddExpress: got %v, want ErrConfig", name, err)
		}
		added(t)(s.AddExpress(Express{}))
		added(t)(add(s))
		if _, err := add(s); !errors.Is(err, ErrConfig) {
			t.Errorf("%s twice: got %v, want ErrConfig", name, err)
		}
	}
}
