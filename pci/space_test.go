package pci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
)

func read(t testing.TB, s *Space, off, n int) uint32 {
	t.Helper()
	var p [4]byte
	if err := s.Read(off, p[:n]); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(p[:])
}

func write(t testing.TB, s *Space, off, n int, v uint32) Changed {
	t.Helper()
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], v)
	changed, err := s.Write(off, p[:n])
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestHeaderFields(t *testing.T) {
	s := newNVMe(t)
	for _, tt := range []struct {
		name   string
		off, n int
		want   uint32
	}{
		{"vendor", 0x00, 2, 0x1b36},
		{"device", 0x02, 2, 0x0010},
		{"command is 0 at power-on", 0x04, 2, 0},
		{"status says that there are capabilities", 0x06, 2, 0x10},
		{"revision", 0x08, 1, 2},
		{"class", 0x08, 4, 0x01080202},
		{"header type 0, one function", 0x0e, 1, 0},
		{"BAR 0 is 64-bit memory", 0x10, 4, 4},
		{"BAR 1 is its upper half", 0x14, 4, 0},
		{"BAR 4 is 32-bit memory", 0x20, 4, 0},
		{"subsystem vendor", 0x2c, 2, 0x1af4},
		{"subsystem", 0x2e, 2, 0x1100},
		{"no expansion ROM", 0x30, 4, 0},
		{"interrupt pin", 0x3d, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := read(t, s, tt.off, tt.n); got != tt.want {
				t.Errorf("%#x at %#x, want %#x", got, tt.off, tt.want)
			}
		})
	}
}

func TestReadOnlyFieldsIgnoreWrites(t *testing.T) {
	s := newNVMe(t)
	for _, r := range [][2]int{{0x00, 4}, {0x08, 4}, {0x0d, 3}, {0x2c, 4}, {0x30, 4}, {0x34, 4}, {0x38, 4}, {0x3d, 3}} {
		before := read(t, s, r[0], r[1])
		if changed := write(t, s, r[0], r[1], ^uint32(0)); changed != 0 {
			t.Errorf("write at %#x reports %#x", r[0], changed)
		}
		if got := read(t, s, r[0], r[1]); got != before {
			t.Errorf("%#x at %#x after a write, was %#x", got, r[0], before)
		}
	}
}

func TestAccessRange(t *testing.T) {
	conventional, err := NewSpace(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		s      *Space
		off, n int
		ok     bool
	}{
		{"all of a conventional space", conventional, 0, 256, true},
		{"all of an Express space", newNVMe(t), 0, 4096, true},
		{"nothing at the end", conventional, 256, 0, true},
		{"the last byte, odd", conventional, 255, 1, true},
		{"one byte too far", conventional, 255, 2, false},
		{"behind the end", conventional, 257, 0, false},
		{"before the start", conventional, -1, 1, false},
		{"extended offset in a conventional space", conventional, 0x100, 4, false},
		{"offset that would overflow", conventional, int(^uint(0) >> 1), 4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := make([]byte, tt.n)
			rerr := tt.s.Read(tt.off, p)
			_, werr := tt.s.Write(tt.off, p)
			for _, err := range []error{rerr, werr} {
				switch {
				case tt.ok && err != nil:
					t.Errorf("refused: %v", err)
				case !tt.ok && (!errors.Is(err, ErrRange) || !errors.Is(err, syscall.EINVAL)):
					t.Errorf("got %v, want ErrRange with EINVAL", err)
				}
			}
		})
	}
}

// An access of any length and alignment is the same as its bytes one by one.
func TestUnalignedWriteIsBytewise(t *testing.T) {
	p := bytes.Repeat([]byte{0xff}, 0x80)
	whole, single := newNVMe(t), newNVMe(t)
	all, err := whole.Write(0x03, p)
	if err != nil {
		t.Fatal(err)
	}
	var sum Changed
	for i := range p {
		c, err := single.Write(0x03+i, p[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		sum |= c
	}
	if dump(t, whole) != dump(t, single) {
		t.Error("the outcome differs")
	}
	if want := ChangedCommand | ChangedBAR | ChangedPM | ChangedMSI | ChangedMSIX | ChangedCapability | RequestedReset; all != want || sum != want {
		t.Errorf("changed %#x and %#x, want %#x", all, sum, want)
	}
}

func TestCommandRegister(t *testing.T) {
	s := newNVMe(t)
	if c := write(t, s, 0x04, 2, 0xffff); c != ChangedCommand {
		t.Errorf("changed %#x", c)
	}
	if got := read(t, s, 0x04, 2); got != 0x546 {
		t.Errorf("%#x are writable, want 0x546: no I/O enable without an I/O BAR", got)
	}
	c := s.Command()
	if c.IOEnable() || !c.MemoryEnable() || !c.BusMaster() || !c.INTxDisable() {
		t.Errorf("command %#x", c)
	}
	if c := write(t, s, 0x04, 2, 0xffff); c != 0 {
		t.Errorf("the same value again changed %#x", c)
	}
	if c := write(t, s, 0x05, 1, 0); c != ChangedCommand {
		t.Errorf("clearing the upper byte changed %#x", c)
	}
	if s.Command().INTxDisable() || !s.Command().BusMaster() {
		t.Error("a write of the upper byte alone changes that byte alone")
	}
}

func TestStatusRegister(t *testing.T) {
	s := newNVMe(t)
	s.now[offStatus+1] = 0xf9 // as after errors on the bus
	write(t, s, 0x06, 2, 0x0100)
	if got := read(t, s, 0x06, 2); got != 0xf810 {
		t.Errorf("%#x after clearing one error, want 0xf810", got)
	}
	write(t, s, 0x06, 2, 0)
	if got := read(t, s, 0x06, 2); got != 0xf810 {
		t.Errorf("writing 0 changed it to %#x", got)
	}
	write(t, s, 0x06, 2, 0xffff)
	if got := read(t, s, 0x06, 2); got != 0x10 {
		t.Errorf("%#x after clearing all, want 0x10", got)
	}
	s.SetInterruptStatus(true)
	write(t, s, 0x06, 2, 0xffff)
	if got := read(t, s, 0x06, 2); got != 0x18 {
		t.Errorf("%#x with an interrupt pending, want 0x18: the guest cannot clear it", got)
	}
	s.SetInterruptStatus(false)
	if got := read(t, s, 0x06, 2); got != 0x10 {
		t.Errorf("%#x without an interrupt, want 0x10", got)
	}
}

func TestScratchRegisters(t *testing.T) {
	s := newNVMe(t)
	write(t, s, 0x3c, 1, 11)
	write(t, s, 0x0c, 1, 16)
	if read(t, s, 0x3c, 1) != 11 || read(t, s, 0x0c, 1) != 16 {
		t.Error("interrupt line and cache line size keep what is written")
	}
}

func TestReset(t *testing.T) {
	s := newNVMe(t)
	fresh := dump(t, s)
	if _, err := s.Write(0, bytes.Repeat([]byte{0x5b}, s.Size())); err != nil {
		t.Fatal(err)
	}
	s.SetInterruptStatus(true)
	s.SetMSIPending(5)
	if dump(t, s) == fresh {
		t.Fatal("nothing to reset")
	}
	s.Reset()
	if dump(t, s) != fresh {
		t.Error("state differs from power-on")
	}
}

// What a driver has enabled ends with it, where it has put the function stays.
func TestRelease(t *testing.T) {
	s := newNVMe(t)
	fresh := read(t, s, s.msix+2, 2)
	write(t, s, 0x10, 4, 0xfebf0000)
	write(t, s, 0x3c, 1, 11)
	if c := s.Release(); c != 0 {
		t.Errorf("changed %#x, and nothing was enabled", c)
	}
	write(t, s, 0x04, 2, 0x0406)
	write(t, s, s.msix+2, 2, 0xc000)
	write(t, s, s.msi+msiControl, 2, 1)
	if c, want := s.Release(), ChangedCommand|ChangedMSI|ChangedMSIX; c != want {
		t.Errorf("changed %#x, want %#x", c, want)
	}
	if read(t, s, 0x04, 2) != 0 || s.MSIEnabled() || read(t, s, s.msix+2, 2) != fresh {
		t.Error("something is still enabled")
	}
	if read(t, s, 0x10, 4)&^0xf != 0xfebf0000 || read(t, s, 0x3c, 1) != 11 {
		t.Error("the BAR or a scratch register was taken back as well")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
	}{
		{"class of more than 24 bits", Config{Class: 0x1000000}},
		{"vendor of no function", Config{Vendor: 0xffff}},
		{"interrupt pin E", Config{InterruptPin: 5}},
		{"ROM that is no power of two", Config{ROMSize: 3000}},
		{"ROM below 2 KiB", Config{ROMSize: 1024}},
		{"ROM above 16 MiB", Config{ROMSize: 32 << 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewSpace(tt.c); !errors.Is(err, ErrConfig) || !errors.Is(err, syscall.EINVAL) {
				t.Errorf("got %v, want ErrConfig with EINVAL", err)
			}
		})
	}
}

func TestAccessDoesNotAllocate(t *testing.T) {
	s := newNVMe(t)
	p := make([]byte, 4)
	n := testing.AllocsPerRun(100, func() {
		if s.Read(0x10, p) != nil {
			t.Fail()
		}
		if _, err := s.Write(0x10, p); err != nil {
			t.Fail()
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Headers of capabilities, and whatever else is read-only, survive any write that crosses
// them; what can be written beside them is written.
func TestWritesAcrossReadOnlyBytes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		at    func(s *Space) int
		write []byte
		want  []byte // what is read back
	}{
		{"id and link of a capability", func(s *Space) int { return s.pm }, []byte{9, 9}, []byte{0x01, 0x48}},
		{"into a capability from before it", func(s *Space) int { return s.msi - 2 }, []byte{9, 9, 9, 9, 0x11, 9}, []byte{0, 0, 0x05, 0x60, 0x9b, 0x01}},
		{"header word of an extended capability", func(s *Space) int { return s.serial }, []byte{9, 9, 9, 9}, []byte{0x03, 0, 0x01, 0}},
		{"upper byte of MSI-X control", func(s *Space) int { return s.msix + 3 }, []byte{0xff}, []byte{0xc0}},
		{"upper byte of MSI-X control and the table's first", func(s *Space) int { return s.msix + 3 }, []byte{0xc0, 0xff}, []byte{0xc0, 0x04}},
		{"the byte behind MSI-X control", func(s *Space) int { return s.msix + 4 }, []byte{0}, []byte{0x04}},
		{"one byte of a BAR", func(*Space) int { return 0x11 }, []byte{0xff}, []byte{0xc0}},
		{"across the halves of a BAR", func(*Space) int { return 0x12 }, []byte{1, 2, 3, 4}, []byte{1, 2, 3, 4}},
		{"from command to status", func(*Space) int { return 0x05 }, []byte{0xff, 0xff}, []byte{0x05, 0x10}},
		{"from the last BAR to what lies between", func(*Space) int { return 0x27 }, []byte{0x80, 9, 9}, []byte{0x80, 0, 0}},
		{"the last byte", func(s *Space) int { return s.Size() - 1 }, []byte{9}, []byte{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newNVMe(t)
			at := tt.at(s)
			if _, err := s.Write(at, tt.write); err != nil {
				t.Fatal(err)
			}
			if got := bytesAt(t, s, at, len(tt.want)); !bytes.Equal(got, tt.want) {
				t.Errorf("% x, want % x", got, tt.want)
			}
			if got, want := len(s.Capabilities()), len(newNVMe(t).Capabilities()); got != want {
				t.Errorf("%d capabilities afterwards, want %d", got, want)
			}
		})
	}
}
