package pci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzConfigSpace: a space with any header and any capabilities holds, after every operation,
// exactly what the model says: read-only bits never change, status bits are only cleared, sizes
// of BARs can be found, the list of capabilities stays, and a reset brings back the beginning.
//
//fuzz:covers pci/space.go pci/bar.go pci/command.go pci/capability.go pci/express.go pci/extended.go pci/msi.go pci/msix.go pci/pm.go
//fuzz:covers pci/restore.go pci/window.go pci/header.go
func FuzzConfigSpace(f *testing.F) {
	choice.Fuzz(f, 100, 400, runSpace)
}

func TestConfigSpacePrograms(t *testing.T) {
	choice.Programs(t, 100, 60, runSpace)
}

func runSpace(t *testing.T, s *choice.Source) {
	t.Helper()
	space, m, err := buildSpace(s)
	if err != nil {
		t.Error(err)
		return
	}
	saved, layout := space.Snapshot(), space.Layout()
	for step := 0; s.More(); step++ {
		var got, want Changed
		var err error
		what := s.Intn(16)
		switch what {
		case 0:
			space.Reset()
			m.now = slices.Clone(m.power)
		case 1:
			got, want = space.Release(), m.release()
		case 2:
			saved = space.Snapshot()
		case 3:
			p := stranger(s, saved)
			if got, err = space.Restore(p); m.restorable(p) {
				want = m.restore(p)
			} else if err = refused(err, "a snapshot that is none"); got != 0 {
				t.Errorf("a snapshot that was refused changes %#x", got)
			}
		case 4:
			checkBARs(t, space, m)
		case 5: // the device shows an error, and that it wants an interrupt
			pending := s.Bool()
			space.SetInterruptStatus(pending)
			m.now[6] = m.now[6]&^8 | byte(bit(pending, 3))
			off := choice.Pick(s, m.spots...)
			if s.Bool() {
				n := min(1+s.Intn(4), space.Size()-off)
				p := s.Bytes(n)
				for i := range p {
					p[i] = m.now[off+i] | p[i]&m.clear[off+i]
				}
				err = space.Set(off, p)
				copy(m.now[off:], p)
			}
		case 6:
			if m.maskable && s.Bool() {
				pending := s.Uint32()
				space.SetMSIPending(pending)
				m.put(m.msiData+8, 4, uint64(pending))
			}
			checkGetters(t, space, m)
		case 7:
			checkRead(t, s, space, m)
		default:
			off, p := spaceWrite(s, m)
			if got, err = space.Write(off, p); !m.fits(off, len(p)) {
				err = refused(err, "a write out of the space")
				break
			}
			want = m.write(off, p)
			if !m.told(off, len(p)) {
				t.Errorf("step %d: a window was not told of a write, or of one that did not concern it", step)
			}
		}
		switch {
		case err != nil:
			t.Errorf("step %d, operation %d: %v", step, what, err)
		case got != want:
			t.Errorf("step %d, operation %d: changed %#x, want %#x", step, what, got, want)
		case !bytes.Equal(space.now, m.now):
			t.Errorf("step %d, operation %d: %s", step, what, difference(space.now, m.now))
		}
		if t.Failed() {
			return
		}
	}
	if got := space.Capabilities(); !sameCapabilities(got, m.caps) {
		t.Errorf("capabilities %+v, want %+v", got, m.caps)
	}
	if space.Layout() != layout {
		t.Error("writes have changed the layout")
	}
}

// refused is nil if there is the error that was to be expected.
func refused(err error, what string) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// stranger is a snapshot that somebody else may have written.
func stranger(s *choice.Source, saved []byte) []byte {
	p := slices.Clone(saved)
	switch s.Intn(8) {
	case 5:
		for i := range p {
			p[i] = ^p[i]
		}
	case 6:
		for range 1 + s.Intn(8) {
			p[s.Intn(len(p))] = s.Uint8()
		}
	case 7:
		p = append(p, 0)[:s.Intn(2)*(len(p)+1)]
	}
	return p
}

// sameCapabilities: the walk has the standard list first, each in the order of the builders.
func sameCapabilities(got, want []Capability) bool {
	sorted := slices.Clone(want)
	slices.SortStableFunc(sorted, func(a, b Capability) int {
		switch {
		case a.Extended == b.Extended:
			return 0
		case a.Extended:
			return 1
		}
		return -1
	})
	return slices.Equal(got, sorted)
}

// spaceWrite is a write of any width anywhere, mostly to or across registers.
func spaceWrite(s *choice.Source, m *spaceModel) (off int, p []byte) {
	off = choice.Pick(s, m.spots...)
	switch s.Intn(8) {
	case 0:
		off = int(int32(s.Edge(uint64(len(m.now)))))
	case 1:
		off += s.Intn(8) - 3
	}
	n := choice.Pick(s, 4, 2, 1, 8, 4, 2, 1, 3)
	if s.Odds(16) {
		n = s.Intn(300)
	}
	p = make([]byte, n)
	switch s.Intn(4) {
	case 0:
		s.Fill(p)
	case 1:
		for i := range p {
			p[i] = 0xff
		}
	case 2: // what is there already
		if m.fits(off, n) {
			copy(p, m.now[off:])
		}
	case 3:
		if n > 0 {
			p[s.Intn(n)] = 1 << s.Intn(8)
		}
	}
	return off, p
}

func checkRead(t *testing.T, s *choice.Source, space *Space, m *spaceModel) {
	t.Helper()
	off, n := int(int32(s.Edge(uint64(space.Size())))), s.Intn(9)
	if s.Bool() {
		off = choice.Pick(s, m.spots...)
	}
	p := make([]byte, n)
	switch err := space.Read(off, p); {
	case (err == nil) != m.fits(off, n):
		t.Errorf("read of %d bytes at %#x: %v", n, off, err)
	case err == nil:
		if want := m.read(off, n); !bytes.Equal(p, want) {
			t.Errorf("read % x at %#x, want % x", p, off, want)
		}
	}
}

// checkBARs finds the size of each BAR and of the ROM as a guest does, and puts back what was there.
func checkBARs(t *testing.T, space *Space, m *spaceModel) {
	t.Helper()
	before := space.Snapshot()
	for i := range NumBARs {
		if i > 0 && m.bars[i-1].Type == Mem64 && m.bars[i-1].Size > 0 {
			continue
		}
		if size, err := barSize(space, i); err != nil || size != m.bars[i].Size {
			t.Errorf("BAR %d has %#x bytes, want %#x; %v", i, size, m.bars[i].Size, err)
		}
		if space.BAR(i) != m.bars[i] {
			t.Errorf("BAR %d is %+v", i, space.BAR(i))
		}
	}
	var rom [4]byte
	_, err := space.Write(0x30, []byte{0, 0xff, 0xff, 0xff})
	if err = errors.Join(err, space.Read(0x30, rom[:])); err != nil || space.ROMSize() != m.rom || binary.LittleEndian.Uint32(rom[:])&^0x7ff != -m.rom {
		t.Errorf("the ROM has %d bytes, and reads % x; want %d; %v", space.ROMSize(), rom, m.rom, err)
	}
	for _, r := range [][2]int{{0x10, 0x28}, {0x30, 0x34}} {
		if _, err := space.Write(r[0], before[r[0]:r[1]]); err != nil {
			t.Error(err)
		}
	}
}

func checkGetters(t *testing.T, space *Space, m *spaceModel) {
	t.Helper()
	on := func(off, n int) bool { return off != 0 && m.now[off]>>n&1 == 1 }
	c := space.Command()
	if uint64(c) != m.get(4, 2) || c.IOEnable() != on(4, 0) || c.MemoryEnable() != on(4, 1) || c.BusMaster() != on(4, 2) || c.INTxDisable() != on(5, 2) {
		t.Errorf("command %#x", c)
	}
	if space.PowerState() != int(m.state()) {
		t.Errorf("power state %d, want %d", space.PowerState(), m.state())
	}
	if want := m.rom != 0 && on(0x30, 0) && on(4, 1); space.ROMEnabled() != want {
		t.Errorf("ROM enabled: %v", !want)
	}
	checkMSI(t, space, m)
	if areas, has := space.MSIX(); has != (m.msix != 0) || areas != m.msixAreas {
		t.Errorf("MSI-X %v %+v, want %+v", has, areas, m.msixAreas)
	}
	if m.msix != 0 && (space.MSIXEnabled() != on(m.msix+3, 7) || space.MSIXFunctionMasked() != on(m.msix+3, 6)) ||
		m.msix == 0 && (space.MSIXEnabled() || space.MSIXFunctionMasked()) {
		t.Errorf("MSI-X enabled %v, masked %v", space.MSIXEnabled(), space.MSIXFunctionMasked())
	}
	if h, err := DecodeHeader(space.now); err != nil || h != headerOf(m.now) {
		t.Errorf("header %+v, want %+v; %v", h, headerOf(m.now), err)
	}
}

func checkMSI(t *testing.T, space *Space, m *spaceModel) {
	t.Helper()
	enabled, vectors, address, data, mask := false, 0, uint64(0), uint64(0), uint64(0)
	if m.msi != 0 {
		if enabled = m.get(m.msi+2, 2)&1 == 1; enabled {
			vectors = min(1<<(m.get(m.msi+2, 2)>>4&7), m.vectors)
		}
		address, data = m.get(m.msi+4, m.msiData-m.msi-4), m.get(m.msiData, 2)
	}
	if m.maskable {
		mask = m.get(m.msiData+4, 4)
	}
	gotAddress, gotData := space.MSIMessage()
	if space.MSIEnabled() != enabled || space.MSIVectors() != vectors || gotAddress != address || uint64(gotData) != data ||
		space.MSIMaskable() != m.maskable || uint64(space.MSIMask()) != mask {
		t.Errorf("MSI %v with %d vectors, %#x to %#x, mask %#x; want %v, %d, %#x to %#x, %#x", space.MSIEnabled(), space.MSIVectors(),
			gotData, gotAddress, space.MSIMask(), enabled, vectors, data, address, mask)
	}
}
