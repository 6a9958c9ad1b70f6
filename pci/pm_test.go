package pci

import (
	"errors"
	"testing"
)

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

func TestPowerStates(t *testing.T) {
	for _, tt := range []struct {
		name    string
		p       PM
		pmc     uint32
		control uint32  // at power-on
		states  [4]int  // after asking for D0 to D3hot from D0
		back    Changed // on the way from D3hot to D0
	}{
		{"D0 and D3hot", PM{}, 0x0003, 0x0008, [4]int{D0, D0, D0, D3hot}, ChangedPM},
		{"all states", PM{D1: true, D2: true}, 0x0603, 0x0008, [4]int{D0, D1, D2, D3hot}, ChangedPM},
		{"D2 alone", PM{D2: true}, 0x0403, 0x0008, [4]int{D0, D0, D2, D3hot}, ChangedPM},
		{"reset on the way back", PM{SoftReset: true}, 0x0003, 0, [4]int{D0, D0, D0, D3hot}, ChangedPM | RequestedReset},
		{"PME from D0 and D3", PM{PME: PMED0 | PMED3hot | PMED3cold}, 0xc803, 0x0008, [4]int{D0, D0, D0, D3hot}, ChangedPM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpace(t, Config{})
			off := added(t)(s.AddPM(tt.p))
			if got := read(t, s, off+2, 2); got != tt.pmc {
				t.Errorf("capabilities %#x, want %#x", got, tt.pmc)
			}
			if got := read(t, s, off+4, 2); got != tt.control {
				t.Errorf("control %#x, want %#x", got, tt.control)
			}
			for ask, want := range tt.states {
				write(t, s, off+4, 2, uint32(ask))
				if got := s.PowerState(); got != want {
					t.Errorf("D%d after asking for D%d, want D%d", got, ask, want)
				}
				if c := write(t, s, off+4, 2, 0); want == D3hot && c != tt.back {
					t.Errorf("back to D0 changed %#x, want %#x", c, tt.back)
				}
			}
		})
	}
}

func TestPowerManagementEvents(t *testing.T) {
	s := newSpace(t, Config{})
	off := added(t)(s.AddPM(PM{PME: PMED3hot}))
	if c := write(t, s, off+4, 2, 0x0100); c != ChangedCapability {
		t.Errorf("PME enable changed %#x", c)
	}
	if err := s.Set(off+5, []byte{0x81}); err != nil {
		t.Fatal(err)
	}
	write(t, s, off+4, 2, 0x0100)
	if got := read(t, s, off+4, 2); got != 0x8108 {
		t.Errorf("control %#x, want PME status kept", got)
	}
	write(t, s, off+4, 2, 0x8000)
	if got := read(t, s, off+4, 2); got != 0x0008 {
		t.Errorf("control %#x, want PME status cleared and PME disabled", got)
	}
	for _, p := range []PM{{PME: 0x20}, {PME: PMED1}, {PME: PMED2, D1: true}} {
		if _, err := newSpace(t, Config{}).AddPM(p); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: got %v, want ErrConfig", p, err)
		}
	}
}
