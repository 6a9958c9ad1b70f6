package pci

// MSI-X capability (7.7.2).
const (
	msixSize    = 12
	msixControl = 2
	msixTable   = 4
	msixPBA     = 8

	msixFunctionMask = 1 << 14
	msixEnable       = 1 << 15

	MSIXEntrySize = 16
	maxMSIX       = 2048
)

// MSIX says where the MSI-X table and its pending bits lie.
type MSIX struct {
	Vectors     int    // 1 to 2,048
	TableBAR    int    // a memory BAR
	TableOffset uint32 // bytes, a multiple of eight
	PBABAR      int
	PBAOffset   uint32
}

// TableSize is what the table takes, in bytes.
func (m MSIX) TableSize() int { return m.Vectors * MSIXEntrySize }

// PBASize is what the pending bits take, in bytes: whole 64-bit words.
func (m MSIX) PBASize() int { return (m.Vectors + 63) / 64 * 8 }

// AddMSIX adds MSI-X and returns the capability's offset.
func (s *Space) AddMSIX(m MSIX) (int, error) {
	if err := once(s.msix, "MSI-X"); err != nil {
		return 0, err
	}
	if m.Vectors < 1 || m.Vectors > maxMSIX {
		return 0, configError("MSI-X: %d vectors is not from 1 to %d", m.Vectors, maxMSIX)
	}
	if err := s.checkMSIXArea("table", m.TableBAR, m.TableOffset, m.TableSize()); err != nil {
		return 0, err
	}
	if err := s.checkMSIXArea("PBA", m.PBABAR, m.PBAOffset, m.PBASize()); err != nil {
		return 0, err
	}
	if m.TableBAR == m.PBABAR &&
		uint64(m.TableOffset) < uint64(m.PBAOffset)+uint64(m.PBASize()) &&
		uint64(m.PBAOffset) < uint64(m.TableOffset)+uint64(m.TableSize()) {
		return 0, configError("MSI-X: table and PBA overlap")
	}
	off, err := s.addCapability(capMSIX, msixSize)
	if err != nil {
		return 0, err
	}
	s.msix, s.msixAreas = off, m
	s.set16(off+msixControl, uint16(m.Vectors-1))
	s.allow16(off+msixControl, msixEnable|msixFunctionMask)
	s.watchRange(off+msixControl, 2, ChangedMSIX)
	s.set32(off+msixTable, m.TableOffset|uint32(m.TableBAR))
	s.set32(off+msixPBA, m.PBAOffset|uint32(m.PBABAR))
	return off, nil
}

func (s *Space) checkMSIXArea(name string, bar int, off uint32, size int) error {
	if bar < 0 || bar >= NumBARs || s.bars[bar].Size == 0 || s.bars[bar].Type == IO {
		return configError("MSI-X %s: BAR %d is not a memory BAR", name, bar)
	}
	if off%8 != 0 {
		return configError("MSI-X %s: offset %#x is not a multiple of eight", name, off)
	}
	if uint64(off)+uint64(size) > s.bars[bar].Size {
		return configError("MSI-X %s: %d bytes at %#x do not lie in BAR %d of %#x bytes",
			name, size, off, bar, s.bars[bar].Size)
	}
	return nil
}

// MSIX says where table and pending bits lie, and whether the function has MSI-X.
func (s *Space) MSIX() (m MSIX, ok bool) { return s.msixAreas, s.msix != 0 }

// MSIXEnabled is true if the function signals by MSI-X.
func (s *Space) MSIXEnabled() bool {
	return s.msix != 0 && s.get16(s.msix+msixControl)&msixEnable != 0
}

// MSIXFunctionMasked is true if every vector is masked, whatever the table says.
func (s *Space) MSIXFunctionMasked() bool {
	return s.msix != 0 && s.get16(s.msix+msixControl)&msixFunctionMask != 0
}
