package pci

import (
	"encoding/binary"
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

	extCapAER    = 0x0001
	extCapSerial = 0x0003
	extCapVendor = 0x000b
	extCapARI    = 0x000e
	extCapLTR    = 0x0018
	extCapDVSEC  = 0x0023
)

// Bytes of a capability's header.
const (
	capHeader    = 2 // id and link
	extCapHeader = 4 // id, version and link
)

// Place has the next capability that is added stand at off, a multiple of four, as a device
// has it that the guest's driver knows. Without it capabilities stand one behind the
// other. Their list has the order in which they were added, wherever they stand.
//
//	off, err := space.Place(0xb0).AddVendor(data)
func (s *Space) Place(off int) *Space {
	s.at = off
	return s
}

// room finds a place from low on for a capability of size bytes that ends at limit at
// the latest.
func (s *Space) room(what string, low, limit, size int) (int, error) {
	if s.at == 0 {
		left := 0
		for off := low; off < limit; off += 4 {
			n := s.unused(off, limit)
			if n >= size {
				return off, nil
			}
			left = max(left, n)
		}
		return 0, noRoom(what, size, left)
	}
	switch {
	case s.at%4 != 0:
		return 0, configError("%s at %#x, which is not a multiple of four", what, s.at)
	case s.at < low || s.at >= limit:
		return 0, configError("%s at %#x, which is not from %#x to %#x", what, s.at, low, limit-1)
	}
	if n := s.unused(s.at, limit); n < size {
		return 0, noRoom(what, size, n)
	}
	return s.at, nil
}

// unused counts free bytes from off up to limit.
func (s *Space) unused(off, limit int) int {
	n := 0
	for off+n < limit && !s.used[off+n] {
		n++
	}
	return n
}

func (s *Space) take(off, size int) {
	s.at = 0
	for i := range size {
		s.used[off+i] = true
	}
}

// addCapability puts a capability of size bytes in its place and links it (7.5.3).
func (s *Space) addCapability(id uint8, size int) (int, error) {
	off, err := s.room("capability", headerSize, SpaceSize, size)
	if err != nil {
		return 0, err
	}
	s.take(off, size)
	s.set8(off, id)
	s.set8(s.link, uint8(off))
	s.link = off + 1
	s.set16(offStatus, statusCapabilities)
	return off, nil
}

// addExtended puts an extended capability in its place (7.6.3). The first stands at
// 0x100; header and link are one word.
func (s *Space) addExtended(id uint16, version uint8, size int) (int, error) {
	off, err := s.room("extended capability", SpaceSize, len(s.now), size)
	if err != nil {
		return 0, err
	}
	if s.extLink == 0 && off != SpaceSize {
		return 0, configError("the first extended capability at %#x, which must stand at %#x", off, SpaceSize)
	}
	s.take(off, size)
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
// its offset. data follows the length byte; there may be several. For one that can be
// written see AddRaw.
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

// Masks say what a guest can change of a capability's bytes. A mask may be shorter than
// the bytes, the rest is read-only then.
type Masks struct {
	Writable []byte // bits that a write stores
	Clear    []byte // bits that writing 1 clears
}

func (m *Masks) check(data []byte) error {
	if len(m.Writable) > len(data) || len(m.Clear) > len(data) {
		return configError("masks of %d and %d bytes for %d bytes", len(m.Writable), len(m.Clear), len(data))
	}
	for i := range min(len(m.Writable), len(m.Clear)) {
		if both := m.Writable[i] & m.Clear[i]; both != 0 {
			return configError("bits %#x of byte %d are stored and cleared by the same write", both, i)
		}
	}
	return nil
}

// shift is m for data that has n read-only bytes in front.
func (m Masks) shift(n int) Masks {
	return Masks{append(make([]byte, n), m.Writable...), append(make([]byte, n), m.Clear...)}
}

// lay puts data with its masks at off.
func (s *Space) lay(off int, data []byte, m *Masks) {
	copy(s.initial[off:], data)
	copy(s.now[off:], data)
	copy(s.writable[off:], m.Writable)
	copy(s.clear[off:], m.Clear)
	s.watchRange(off, len(data), ChangedCapability)
}

// RawCapability is a standard capability (7.5.3) as its bytes.
type RawCapability struct {
	ID    uint8
	Data  []byte // what follows id and link
	Masks        // of Data
}

// rawBuilders are the capabilities that do something when they are written.
var rawBuilders = map[uint8]string{capPM: "AddPM", capMSI: "AddMSI", capExpress: "AddExpress", capMSIX: "AddMSIX"}

// AddRaw adds a standard capability of any kind that has no builder of its own, or a
// vendor-specific one with bytes that can be written, and returns its offset.
func (s *Space) AddRaw(c RawCapability) (int, error) {
	if name, ok := rawBuilders[c.ID]; ok {
		return 0, configError("capability %#02x has a builder of its own, %s", c.ID, name)
	}
	if c.ID == capVendor && (len(c.Data) == 0 || int(c.Data[0]) != capHeader+len(c.Data)) {
		return 0, configError("a vendor-specific capability begins with its length, %d here", capHeader+len(c.Data))
	}
	if err := c.check(c.Data); err != nil {
		return 0, err
	}
	off, err := s.addCapability(c.ID, capHeader+len(c.Data))
	if err != nil {
		return 0, err
	}
	s.lay(off+capHeader, c.Data, &c.Masks)
	return off, nil
}

// RawExtended is an extended capability (7.6.3) as its bytes.
type RawExtended struct {
	ID      uint16
	Version uint8  // 0 to 15
	Data    []byte // what follows the header word
	Masks          // of Data
}

// AddRawExtended adds an extended capability of any kind and returns its offset.
func (s *Space) AddRawExtended(c RawExtended) (int, error) {
	if c.Version > 15 {
		return 0, configError("extended capability %#04x: version %d has more than four bits", c.ID, c.Version)
	}
	if err := c.check(c.Data); err != nil {
		return 0, err
	}
	off, err := s.addExtended(c.ID, c.Version, extCapHeader+len(c.Data))
	if err != nil {
		return 0, err
	}
	s.lay(off+extCapHeader, c.Data, &c.Masks)
	return off, nil
}

// VendorExtended is a vendor-specific extended capability, VSEC (7.9.5).
type VendorExtended struct {
	ID       uint16 // the vendor's own
	Revision uint8  // 0 to 15
	Data     []byte // what follows the two header words
	Masks           // of Data
}

// AddVendorExtended adds a vendor-specific extended capability and returns its offset.
func (s *Space) AddVendorExtended(v VendorExtended) (int, error) {
	return s.addSized(extCapVendor, v.ID, v.Revision, v.Data, v.Masks)
}

// DVSEC is a designated vendor-specific extended capability (7.9.6).
type DVSEC struct {
	Vendor   uint16 // who defined it
	ID       uint16 // his own
	Revision uint8  // 0 to 15
	Data     []byte // what follows the id, from offset 0x0a on
	Masks           // of Data
}

// AddDVSEC adds a designated vendor-specific extended capability and returns its offset.
func (s *Space) AddDVSEC(d DVSEC) (int, error) {
	data := binary.LittleEndian.AppendUint16(nil, d.ID)
	return s.addSized(extCapDVSEC, d.Vendor, d.Revision, append(data, d.Data...), d.shift(2))
}

// addSized adds what VSEC and DVSEC have in common: a word of an id, a revision and the
// length of the whole, and data.
func (s *Space) addSized(id, first uint16, revision uint8, data []byte, m Masks) (int, error) {
	length := extCapHeader + 4 + len(data)
	if revision > 15 || length > 0xfff {
		return 0, configError("extended capability %#04x of %d bytes, revision %d: too large", id, length, revision)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(first)|uint32(revision)<<16|uint32(length)<<20)
	return s.AddRawExtended(RawExtended{ID: id, Version: 1, Data: append(head, data...), Masks: m.shift(len(head))})
}
