package pci

import "encoding/binary"

// Header is what the first 64 bytes of a configuration space say (7.5.1). Base addresses
// and what follows them are there for type 0 only.
type Header struct {
	Vendor, Device       uint16
	Command              Command
	Status               uint16
	Class                uint32
	Revision             uint8
	Type                 uint8 // 0 for a device, 1 for a bridge
	MultiFunction        bool
	BARs                 [NumBARs]BaseAddress
	SubVendor, SubDevice uint16
	ROM                  uint32 // address of the expansion ROM
	ROMEnable            bool
	InterruptLine        uint8
	InterruptPin         uint8 // 0 none, 1 INTA to 4 INTD
}

// BaseAddress is what a base address register says. One that reads 0 may be a memory BAR
// without an address or none at all: the size of the region tells.
type BaseAddress struct {
	Address  uint64
	Type     BARType
	Prefetch bool
	Upper    bool // the upper half of the one before, which has it all
}

// DecodeHeader reads a header. The bytes need not be trusted; the error is of kind
// ErrRange if there are too few.
func DecodeHeader(space []byte) (Header, error) {
	if len(space) < headerSize {
		return Header{}, rangeError(0, headerSize, len(space))
	}
	le := binary.LittleEndian
	h := Header{
		Vendor:        le.Uint16(space[offVendor:]),
		Device:        le.Uint16(space[offDevice:]),
		Command:       Command(le.Uint16(space[offCommand:])),
		Status:        le.Uint16(space[offStatus:]),
		Class:         le.Uint32(space[offRevision:]) >> 8,
		Revision:      space[offRevision],
		Type:          space[offHeaderType] & headerTypeMask,
		MultiFunction: space[offHeaderType]&multiFunction != 0,
	}
	if h.Type != 0 {
		return h, nil
	}
	h.SubVendor = le.Uint16(space[offSubVendor:])
	h.SubDevice = le.Uint16(space[offSubDevice:])
	rom := le.Uint32(space[offROM:])
	h.ROM, h.ROMEnable = rom&^(minROM-1), rom&romEnable != 0
	h.InterruptLine, h.InterruptPin = space[offIntLine], space[offIntPin]
	for i := 0; i < NumBARs; i++ {
		v := le.Uint32(space[offBAR0+4*i:])
		b := &h.BARs[i]
		if v&barIO != 0 {
			*b = BaseAddress{Address: uint64(v &^ (minIOBAR - 1)), Type: IO}
			continue
		}
		*b = BaseAddress{Address: uint64(v &^ (minMemBAR - 1)), Prefetch: v&barPrefetch != 0}
		if v&barMem64 != 0 && i+1 < NumBARs {
			b.Type = Mem64
			b.Address |= uint64(le.Uint32(space[offBAR0+4*(i+1):])) << 32
			i++
			h.BARs[i].Upper = true
		}
	}
	return h, nil
}
