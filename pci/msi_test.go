package pci

import (
	"errors"
	"testing"
)

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
	if c := write(t, s, s.msi+16, 4, 0x80000001); c != ChangedMSI || s.MSIMask() != 0x80000001 {
		t.Errorf("mask %#x, changed %#x", s.MSIMask(), c)
	}
	s.SetMSIPending(6)
	write(t, s, s.msi+20, 4, 0)
	if got := read(t, s, s.msi+20, 4); got != 6 {
		t.Errorf("pending %#x, want 6: the guest cannot write it", got)
	}
}

func TestMSIWithoutMask(t *testing.T) {
	s, err := NewSpace(Config{})
	if err != nil {
		t.Fatal(err)
	}
	off, err := s.AddMSI(MSI{Vectors: 4})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, off+2, 2); got != 0x0084 {
		t.Errorf("control %#x, want four 64-bit messages", got)
	}
	s.SetMSIPending(1)
	write(t, s, off+16, 4, 1)
	if s.MSIMask() != 0 || read(t, s, off+16, 4) != 0 {
		t.Error("there is no mask to write")
	}
	for _, n := range []int{0, 3, 64} {
		other, err := NewSpace(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.AddMSI(MSI{Vectors: n}); !errors.Is(err, ErrConfig) {
			t.Errorf("%d vectors: got %v, want ErrConfig", n, err)
		}
	}
}

// Where the fields lie depends on the width of the address and on the masks (7.7.1).
func TestMSILayouts(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		m                           MSI
		control                     uint32
		data, mask, pending, behind int // offsets; 0: not there
	}{
		{"32 bits", MSI{Vectors: 2, Address32: true}, 0x0002, 8, 0, 0, 12},
		{"64 bits", MSI{Vectors: 2}, 0x0082, 12, 0, 0, 16},
		{"32 bits with masks", MSI{Vectors: 2, Address32: true, Maskable: true}, 0x0102, 8, 12, 16, 20},
		{"64 bits with masks", MSI{Vectors: 2, Maskable: true}, 0x0182, 12, 16, 20, 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpace(t, Config{})
			off := added(t)(s.AddMSI(tt.m))
			behind := added(t)(s.AddVendor(nil))
			if behind != off+tt.behind {
				t.Errorf("the next capability stands %d bytes behind, want %d", behind-off, tt.behind)
			}
			if got := read(t, s, off+2, 2); got != tt.control {
				t.Errorf("control %#x, want %#x", got, tt.control)
			}
			for i := off + 2; i < behind; i++ {
				write(t, s, i, 1, 0xff)
			}
			s.SetMSIPending(2)
			address, data := s.MSIMessage()
			wantAddress := uint64(0xfffffffc)
			if !tt.m.Address32 {
				wantAddress = 0xffffffff_fffffffc
			}
			if address != wantAddress || data != 0xffff {
				t.Errorf("message %#x to %#x", data, address)
			}
			if got := read(t, s, off+tt.data, 2); got != 0xffff {
				t.Errorf("data at %d reads %#x", tt.data, got)
			}
			mask, pending := uint32(0), uint32(0)
			if tt.m.Maskable {
				mask, pending = 3, 2
				if got := read(t, s, off+tt.mask, 4); got != 3 {
					t.Errorf("mask reads %#x, want a bit for each vector", got)
				}
				if got := read(t, s, off+tt.pending, 4); got != pending {
					t.Errorf("pending reads %#x", got)
				}
			}
			if s.MSIMask() != mask || s.MSIMaskable() != tt.m.Maskable {
				t.Errorf("mask %#x", s.MSIMask())
			}
		})
	}
}
