package pci

import (
	"errors"
	"testing"
)

// A guest learns a BAR's size by writing ones and reading back (7.5.1.2.1).
func TestBARSizing(t *testing.T) {
	for _, tt := range []struct {
		name      string
		bar       BAR
		low, high uint32 // read back after writing ones; high is the next register
	}{
		{"memory, 16 bytes", BAR{Size: 16}, 0xfffffff0, 0},
		{"memory, 4 KiB", BAR{Size: 4096}, 0xfffff000, 0},
		{"memory, 2 GiB", BAR{Size: 2 << 30}, 0x80000000, 0},
		{"prefetchable memory", BAR{Size: 1 << 20, Prefetch: true}, 0xfff00008, 0},
		{"64-bit memory, 16 KiB", BAR{Size: 16 << 10, Type: Mem64}, 0xffffc004, 0xffffffff},
		{"64-bit memory, 4 GiB", BAR{Size: 4 << 30, Type: Mem64}, 0x00000004, 0xffffffff},
		{"64-bit prefetchable, 64 GiB", BAR{Size: 64 << 30, Type: Mem64, Prefetch: true}, 0x0000000c, 0xfffffff0},
		{"I/O, 4 bytes", BAR{Size: 4, Type: IO}, 0xfffffffd, 0},
		{"I/O, 256 bytes", BAR{Size: 256, Type: IO}, 0xffffff01, 0},
		{"none", BAR{}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSpace(Config{BARs: [NumBARs]BAR{2: tt.bar}})
			if err != nil {
				t.Fatal(err)
			}
			want := ChangedBAR
			if read(t, s, 0x18, 4) == tt.low { // no bit of this register is writable
				want = 0
			}
			if c := write(t, s, 0x18, 4, ^uint32(0)); c != want {
				t.Errorf("changed %#x, want %#x", c, want)
			}
			write(t, s, 0x1c, 4, ^uint32(0))
			if low, high := read(t, s, 0x18, 4), read(t, s, 0x1c, 4); low != tt.low || high != tt.high {
				t.Errorf("read back %#x and %#x, want %#x and %#x", low, high, tt.low, tt.high)
			}
			if s.BAR(2) != tt.bar {
				t.Errorf("BAR(2) = %+v", s.BAR(2))
			}
		})
	}
}

func TestBARKeepsAnAddress(t *testing.T) {
	s := newNVMe(t)
	write(t, s, 0x10, 4, 0xfebf4000)
	write(t, s, 0x14, 4, 0x38)
	if got := read(t, s, 0x10, 4); got != 0xfebf4004 {
		t.Errorf("%#x", got)
	}
	if got := read(t, s, 0x14, 4); got != 0x38 {
		t.Errorf("upper half %#x", got)
	}
}

func TestROMSizing(t *testing.T) {
	s, err := NewSpace(Config{ROMSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if c := write(t, s, 0x30, 4, ^uint32(0)); c != ChangedBAR {
		t.Errorf("changed %#x", c)
	}
	if got := read(t, s, 0x30, 4); got != 0xffff0001 {
		t.Errorf("read back %#x, want 0xffff0001", got)
	}
}

// 7.5.1.2.4: the function answers if its memory and the ROM are both enabled.
func TestROMEnable(t *testing.T) {
	s := newSpace(t, Config{ROMSize: 4096, BARs: [NumBARs]BAR{{Size: 4096}}})
	if s.ROMSize() != 4096 {
		t.Errorf("size %d", s.ROMSize())
	}
	for _, tt := range []struct {
		command, rom uint32
		want         bool
	}{{0, 0, false}, {2, 0xfe000000, false}, {0, 0xfe000001, false}, {2, 0xfe000001, true}} {
		write(t, s, 0x04, 2, tt.command)
		write(t, s, 0x30, 4, tt.rom)
		if s.ROMEnabled() != tt.want {
			t.Errorf("command %#x, ROM %#x: enabled %v", tt.command, tt.rom, s.ROMEnabled())
		}
	}
	without := newSpace(t, Config{})
	write(t, without, 0x30, 4, ^uint32(0))
	if without.ROMEnabled() || without.ROMSize() != 0 {
		t.Error("there is no ROM to enable")
	}
}

// A function whose only memory is its ROM has the enable bit for memory.
func TestMemoryEnableForAROMAlone(t *testing.T) {
	s := newSpace(t, Config{ROMSize: 4096})
	write(t, s, 0x04, 2, 2)
	write(t, s, 0x30, 4, 1)
	if !s.ROMEnabled() {
		t.Error("the ROM cannot be enabled")
	}
}

func TestIOEnableNeedsAnIOBAR(t *testing.T) {
	s, err := NewSpace(Config{BARs: [NumBARs]BAR{{Size: 32, Type: IO}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, 0x04, 2, 0x3)
	if c := s.Command(); !c.IOEnable() || c.MemoryEnable() {
		t.Errorf("command %#x, want I/O enabled and no memory", c)
	}
}

func TestBARsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		bars [NumBARs]BAR
	}{
		{"size that is no power of two", [NumBARs]BAR{{Size: 3 << 12}}},
		{"memory below 16 bytes", [NumBARs]BAR{{Size: 8}}},
		{"32-bit memory above 2 GiB", [NumBARs]BAR{{Size: 4 << 30}}},
		{"I/O below 4 bytes", [NumBARs]BAR{{Size: 2, Type: IO}}},
		{"I/O above 256 bytes", [NumBARs]BAR{{Size: 512, Type: IO}}},
		{"prefetchable I/O", [NumBARs]BAR{{Size: 32, Type: IO, Prefetch: true}}},
		{"unknown type", [NumBARs]BAR{{Size: 4096, Type: 3}}},
		{"64 bits in the last register", [NumBARs]BAR{5: {Size: 4096, Type: Mem64}}},
		{"64 bits over a BAR in use", [NumBARs]BAR{{Size: 4096, Type: Mem64}, {Size: 4096}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewSpace(Config{BARs: tt.bars}); !errors.Is(err, ErrConfig) {
				t.Errorf("got %v, want ErrConfig", err)
			}
		})
	}
}
