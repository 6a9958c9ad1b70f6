package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Capability is one that Walk found.
type Capability struct {
	Offset   int
	ID       uint16
	Extended bool
	Version  uint8 // of an extended one
}

const (
	offHeaderType    = 0x0e
	offCardBusCapPtr = 0x14
	headerTypeMask   = 0x7f
	multiFunction    = 0x80

	typeCardBus = 2
)

// Walk lists the capabilities of a configuration space, both lists in their order. The
// bytes may come from a device that is not to be trusted: whatever they say, the walk ends,
// and stays inside. With an error, which is found under ErrChain, the list has what was
// found before, and the other list all the same.
func Walk(space []byte) ([]Capability, error) {
	if len(space) < headerSize {
		return nil, chainError("%d bytes are no header", len(space))
	}
	le := binary.LittleEndian
	if le.Uint16(space[offVendor:]) == noVendor {
		return nil, chainError("the function does not answer: its vendor reads ffff")
	}
	var list []Capability
	var standard, extended error
	if le.Uint16(space[offStatus:])&statusCapabilities != 0 {
		list, standard = walkStandard(list, space)
	}
	if len(space) > SpaceSize {
		list, extended = walkExtended(list, space)
	}
	return list, errors.Join(standard, extended)
}

func chainError(format string, args ...any) error {
	return &Error{Kind: ErrChain, Errno: syscall.EBADMSG, Reason: fmt.Sprintf(format, args...)}
}

// walkStandard follows the links of one byte, whose two low bits mean nothing (7.5.3).
func walkStandard(list []Capability, space []byte) ([]Capability, error) {
	link := offCapPointer
	if space[offHeaderType]&headerTypeMask == typeCardBus {
		link = offCardBusCapPtr
	}
	var seen [SpaceSize]bool
	for off := int(space[link]) &^ 3; off != 0; off = int(space[link]) &^ 3 {
		switch {
		case off < headerSize || off+capHeader > len(space):
			return list, chainError("the link at %#x leads to %#x", link, off)
		case seen[off]:
			return list, chainError("the link at %#x leads back to %#x", link, off)
		case space[off] == 0xff:
			return list, chainError("no capability at %#x: the id reads ff", off)
		}
		seen[off] = true
		list = append(list, Capability{Offset: off, ID: uint16(space[off])})
		link = off + 1
	}
	return list, nil
}

// walkExtended follows the links of twelve bits (7.6.3). A first word of 0 is an empty
// list; so is one of ones, as from a function that has no such space.
func walkExtended(list []Capability, space []byte) ([]Capability, error) {
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(space[off:]) }
	if len(space) < SpaceSize+extCapHeader || word(SpaceSize) == 0 || word(SpaceSize) == 0xffffffff {
		return list, nil
	}
	var seen [ExpressSpaceSize]bool
	for at, off := 0, SpaceSize; ; {
		switch {
		case off < SpaceSize || off+extCapHeader > len(space):
			return list, chainError("the link at %#x leads to %#x", at, off)
		case seen[off]:
			return list, chainError("the link at %#x leads back to %#x", at, off)
		}
		seen[off] = true
		header := word(off)
		list = append(list, Capability{Offset: off, ID: uint16(header), Extended: true, Version: uint8(header>>16) & 15})
		at, off = off, int(header>>20)&^3
		if off == 0 {
			return list, nil
		}
	}
}

// Capabilities lists the space's own capabilities.
func (s *Space) Capabilities() []Capability {
	list, _ := Walk(s.now) // nobody but the builders writes the links
	return list
}
