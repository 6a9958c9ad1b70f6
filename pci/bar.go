package pci

import "math/bits"

// NumBARs is the number of base address registers in a type 0 header.
const NumBARs = 6

// BARType says where a BAR lies.
type BARType uint8

const (
	Mem32 BARType = iota
	Mem64         // takes the next register too
	IO
)

// BAR describes a base address register (7.5.1.2.1); Size 0 is one that is not there.
type BAR struct {
	Size     uint64 // bytes, a power of two
	Type     BARType
	Prefetch bool // reads have no side effects; memory only
}

// Low bits of a base address register.
const (
	barIO       = 1 << 0
	barMem64    = 2 << 1
	barPrefetch = 1 << 3
)

const (
	minMemBAR = 16
	maxMem32  = 1 << 31
	minIOBAR  = 4
	maxIOBAR  = 256
	minROM    = 2048
	maxROM    = 16 << 20
	romEnable = 1
)

// BAR returns the description of register i. The one that holds the upper half of a
// 64-bit BAR is empty.
func (s *Space) BAR(i int) BAR { return s.bars[i] }

func (s *Space) setBARs(bars [NumBARs]BAR) error {
	for i, b := range bars {
		if b.Size == 0 {
			continue
		}
		if err := checkBAR(i, b); err != nil {
			return err
		}
		off := offBAR0 + 4*i
		mask := ^(b.Size - 1) // the address bits below the size read 0: that is how a guest learns it
		s.allow32(off, uint32(mask))
		s.watchRange(off, 4, ChangedBAR)
		var flags uint32
		switch b.Type {
		case IO:
			flags = barIO
		case Mem64:
			if i+1 == NumBARs || bars[i+1].Size != 0 {
				return configError("BAR %d: 64 bits need the next register, which is not free", i)
			}
			flags = barMem64
			s.allow32(off+4, uint32(mask>>32))
			s.watchRange(off+4, 4, ChangedBAR)
		}
		if b.Prefetch {
			flags |= barPrefetch
		}
		s.set32(off, flags)
	}
	s.bars = bars
	return nil
}

func checkBAR(i int, b BAR) error {
	low, high := uint64(minMemBAR), uint64(maxMem32)
	switch b.Type {
	case Mem32:
	case Mem64:
		high = 1 << 63
	case IO:
		low, high = minIOBAR, maxIOBAR
		if b.Prefetch {
			return configError("BAR %d: I/O space cannot be prefetchable", i)
		}
	default:
		return configError("BAR %d: unknown type %d", i, b.Type)
	}
	if bits.OnesCount64(b.Size) != 1 || b.Size < low || b.Size > high {
		return configError("BAR %d: size %#x is not a power of two from %#x to %#x", i, b.Size, low, high)
	}
	return nil
}

// setROM lays out the expansion ROM's base address (7.5.1.2.4). Without a ROM the
// register stays 0, whatever is written.
func (s *Space) setROM(size uint32) error {
	if size == 0 {
		return nil
	}
	if bits.OnesCount32(size) != 1 || size < minROM || size > maxROM {
		return configError("ROM: size %#x is not a power of two from %#x to %#x", size, minROM, maxROM)
	}
	s.allow32(offROM, ^(size-1)|romEnable)
	s.watchRange(offROM, 4, ChangedBAR)
	s.romSize = size
	return nil
}

// ROMSize is the size of the expansion ROM in bytes, 0 if there is none.
func (s *Space) ROMSize() uint32 { return s.romSize }

// ROMEnabled is true if the function answers to the addresses of its expansion ROM: the
// register's enable bit and the command register's for memory are both set (7.5.1.2.4).
func (s *Space) ROMEnabled() bool {
	return s.romSize != 0 && s.get32(offROM)&romEnable != 0 && s.Command().MemoryEnable()
}
