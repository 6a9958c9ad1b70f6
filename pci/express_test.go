package pci

import (
	"errors"
	"testing"
)

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
		{"a port, which is no endpoint", true, Express{Type: 4}},
		{"a link inside the root complex", true, Express{Type: RootComplexIntegrated, Lanes: 1}},
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

func TestExpressTypes(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		e                      Express
		flags, devCap, linkCap uint32
	}{
		{"endpoint", Express{}, 0x0002, 0x8fe1, 0x400043},
		{"legacy endpoint", Express{Type: LegacyEndpoint}, 0x0012, 0x8fe1, 0x400043},
		{"integrated in the root complex", Express{Type: RootComplexIntegrated, FLR: true}, 0x0092, 0x10008021, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpace(t, Config{Express: true})
			off := added(t)(s.AddExpress(tt.e))
			if got := read(t, s, off+expFlags, 2); got != tt.flags {
				t.Errorf("flags %#x, want %#x", got, tt.flags)
			}
			if got := read(t, s, off+expDeviceCap, 4); got != tt.devCap {
				t.Errorf("device capabilities %#x, want %#x", got, tt.devCap)
			}
			if got := read(t, s, off+expLinkCap, 4); got != tt.linkCap {
				t.Errorf("link capabilities %#x, want %#x", got, tt.linkCap)
			}
			if tt.linkCap != 0 {
				return
			}
			for _, reg := range []int{expLinkCtl, expLinkSta, expLinkCap2, expLinkCtl2, expLinkSta2} {
				write(t, s, off+reg, 2, 0xffff)
				if got := read(t, s, off+reg, 2); got != 0 {
					t.Errorf("%#x at %#x: there is no link", got, reg)
				}
			}
		})
	}
}
