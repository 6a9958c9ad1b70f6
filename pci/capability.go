package pci

import (
	"fmt"
	"syscall"
)

// Capability ids ("PCI Code and ID Assignment Specification").
const (
	capPM      = 0x01
	capMSI     = 0x05
	capVendor  = 0x09
	capExpress = 0x10
	capMSIX    = 0x11

	extCapSerial = 0x0003
)

// addCapability puts a capability of size bytes behind the last one and links it
// (7.5.3). It starts at a multiple of four.
func (s *Space) addCapability(id uint8, size int) (int, error) {
	off := s.free
	if size > SpaceSize-off {
		return 0, noRoom("capability", size, SpaceSize-off)
	}
	s.free = (off + size + 3) &^ 3
	s.set8(off, id)
	s.set8(s.link, uint8(off))
	s.link = off + 1
	s.set16(offStatus, statusCapabilities)
	return off, nil
}

// addExtended puts an extended capability behind the last one (7.6.3). The first
// stands at 0x100; header and link are one word.
func (s *Space) addExtended(id uint16, version uint8, size int) (int, error) {
	off := s.extFree
	if size > len(s.now)-off {
		return 0, noRoom("extended capability", size, len(s.now)-off)
	}
	s.extFree = (off + size + 3) &^ 3
	s.set32(off, uint32(id)|uint32(version)<<16)
	if s.extLink != 0 {
		s.set32(s.extLink, s.get32(s.extLink)|uint32(off)<<20)
	}
	s.extLink = off
	return off, nil
}

func noRoom(what string, size, left int) error {
	return &Error{Kind: ErrNoRoom, Errno: syscall.ENOSPC,
		Reason: fmt.Sprintf("%s of %d bytes, %d are left", what, size, left)}
}

// once refuses a capability that may stand in a function only once.
func once(off int, name string) error {
	if off != 0 {
		return configError("the %s capability is there already", name)
	}
	return nil
}

// maxVendorData is what the length byte leaves after the three bytes in front.
const maxVendorData = 255 - 3

// AddVendor adds a vendor-specific capability (7.9.4) with read-only data and returns
// its offset. data follows the length byte; there may be several.
func (s *Space) AddVendor(data []byte) (int, error) {
	if len(data) > maxVendorData {
		return 0, configError("vendor data of %d bytes, at most %d fit", len(data), maxVendorData)
	}
	off, err := s.addCapability(capVendor, 3+len(data))
	if err != nil {
		return 0, err
	}
	s.set8(off+2, uint8(3+len(data)))
	for i, v := range data {
		s.set8(off+3+i, v)
	}
	return off, nil
}

// AddSerial adds the device serial number (7.9.3), an EUI-64, and returns its offset.
func (s *Space) AddSerial(eui64 uint64) (int, error) {
	if err := once(s.serial, "serial number"); err != nil {
		return 0, err
	}
	off, err := s.addExtended(extCapSerial, 1, 12)
	if err != nil {
		return 0, err
	}
	s.serial = off
	s.set32(off+4, uint32(eui64))
	s.set32(off+8, uint32(eui64>>32))
	return off, nil
}
