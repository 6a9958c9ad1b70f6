package pci

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzConfigSpace: a space with any header and any capabilities holds, after every operation,
// exactly what the model says: read-only bits never change, status bits are only cleared, sizes
// of BARs can be found, the list of capabilities stays, and a reset brings back the beginning.
//
//fuzz:covers pci/space.go pci/bar.go pci/command.go pci/capability.go pci/express.go pci/extended.go pci/msi.go pci/msix.go pci/pm.go
//fuzz:covers pci/restore.go
func FuzzConfigSpace(f *testing.F) {
	choice.Fuzz(f, 32, 400, runSpace)
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
	saved := space.Snapshot()
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
			if got, err = space.Restore(saved); err == nil {
				want = m.restore(saved)
			}
		case 4:
			checkBARs(t, space, m)
		case 5: // the device shows an error, and that it wants an interrupt
			space.SetInterruptStatus(s.Bool())
			m.now[6] = m.now[6]&^8 | space.now[6]&8
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
			checkGetters(t, space, m)
		default:
			off, p := spaceWrite(s, m)
			got, err = space.Write(off, p)
			if fits := m.fits(off, len(p)); fits {
				want = m.write(off, p)
			} else if errors.Is(err, ErrRange) {
				err = nil
			} else {
				t.Errorf("%d bytes at %#x: %v", len(p), off, err)
			}
		}
		switch {
		case err != nil:
			t.Errorf("step %d, operation %d: %v", step, what, err)
		case got != want:
			t.Errorf("step %d, operation %d: changed %#x, want %#x", step, what, got, want)
		case !bytes.Equal(space.now, m.now):
			at := 0
			for space.now[at] == m.now[at] {
				at++
			}
			t.Errorf("step %d, operation %d: %#x holds %#x, want %#x", step, what, at, space.now[at], m.now[at])
		}
		if t.Failed() {
			return
		}
		if step%16 == 0 {
			checkRead(t, s, space, m)
		}
	}
	if got := space.Capabilities(); !sameCapabilities(got, m.caps) {
		t.Errorf("capabilities %+v, want %+v", got, m.caps)
	}
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
	p := make([]byte, n)
	switch err := space.Read(off, p); {
	case (err == nil) != m.fits(off, n):
		t.Errorf("read of %d bytes at %#x: %v", n, off, err)
	case err == nil && !bytes.Equal(p, m.now[off:off+n]):
		t.Errorf("read % x at %#x, want % x", p, off, m.now[off:off+n])
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
	if space.ROMSize() != m.rom {
		t.Errorf("the ROM has %d bytes, want %d", space.ROMSize(), m.rom)
	}
	if _, err := space.Write(0x10, before[0x10:0x28]); err != nil {
		t.Error(err)
	}
}

func checkGetters(t *testing.T, space *Space, m *spaceModel) {
	t.Helper()
	le16 := func(off int) uint16 { return uint16(m.now[off]) | uint16(m.now[off+1])<<8 }
	if c := space.Command(); uint16(c) != le16(4) || c.BusMaster() != (m.now[4]&4 != 0) || c.INTxDisable() != (m.now[5]&4 != 0) {
		t.Errorf("command %#x", c)
	}
	if space.PowerState() != int(m.state()) {
		t.Errorf("power state %d, want %d", space.PowerState(), m.state())
	}
	if want := m.rom != 0 && m.now[0x30]&1 != 0 && m.now[4]&2 != 0; space.ROMEnabled() != want {
		t.Errorf("ROM enabled: %v", !want)
	}
	if n := space.MSIVectors(); n > m.vectors || space.MSIEnabled() != (n > 0) {
		t.Errorf("%d messages of %d, enabled %v", n, m.vectors, space.MSIEnabled())
	}
	if mask := space.MSIMask(); uint64(mask)>>m.vectors != 0 {
		t.Errorf("mask %#x of %d messages", mask, m.vectors)
	}
	for _, c := range m.caps {
		if c.ID == 0x11 && !c.Extended {
			control := le16(c.Offset + 2)
			if space.MSIXEnabled() != (control&0x8000 != 0) || space.MSIXFunctionMasked() != (control&0x4000 != 0) {
				t.Errorf("MSI-X control %#x", control)
			}
		}
	}
}
