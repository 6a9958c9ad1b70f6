package pci

import "encoding/binary"

// Sizes of a configuration space in bytes (7.2): conventional and Express.
const (
	SpaceSize        = 256
	ExpressSpaceSize = 4096
)

// Offsets in the type 0 header (7.5.1).
const (
	offVendor     = 0x00
	offDevice     = 0x02
	offCommand    = 0x04
	offStatus     = 0x06
	offRevision   = 0x08
	offClass      = 0x09
	offCacheLine  = 0x0c
	offBAR0       = 0x10
	offSubVendor  = 0x2c
	offSubDevice  = 0x2e
	offROM        = 0x30
	offCapPointer = 0x34
	offIntLine    = 0x3c
	offIntPin     = 0x3d
	headerSize    = 0x40
)

// noVendor is read where no function answers (7.5.1.1.1).
const noVendor = 0xffff

// Config describes a function as it is before any capability is added.
type Config struct {
	Vendor, Device       uint16 // Vendor is not ffff
	SubVendor, SubDevice uint16
	Class                uint32 // base class, sub-class, programming interface: 0x010802 is NVMe
	Revision             uint8
	InterruptPin         uint8 // 0 none, 1 INTA to 4 INTD
	BARs                 [NumBARs]BAR
	ROMSize              uint32 // of the expansion ROM in bytes; 0: none
	Express              bool   // 4,096 bytes instead of 256
}

// Changed says what a write changed.
type Changed uint8

const (
	ChangedCommand Changed = 1 << iota // memory, I/O, bus master or INTx enable
	ChangedBAR                         // a base address, the ROM's too
	ChangedPM                          // power state
	ChangedMSI                         // enable, number of messages, address, data or mask
	ChangedMSIX                        // enable or function mask
	// ChangedCapability: a register of any other capability.
	ChangedCapability
	// RequestedReset is not a change: the guest asks for a reset of the function, by
	// Initiate Function Level Reset (6.6.2) or by leaving D3hot where PM says that this
	// resets. The caller resets the device and calls Reset.
	RequestedReset
)

// Space is a configuration space. It has one owner at a time: nothing here locks.
type Space struct {
	now      []byte    // what a read returns
	initial  []byte    // the same at power-on
	writable []byte    // bits that a write stores
	clear    []byte    // bits that writing 1 clears (RW1C)
	watch    []Changed // what it means if a byte changes

	bars    [NumBARs]BAR
	romSize uint32

	used    []bool // bytes that belong to a capability
	at      int    // where the next capability has to stand, 0: anywhere
	link    int    // where the offset of the next capability goes
	extLink int    // the same for extended capabilities, 0 before the first

	// Offsets of capabilities, 0: not there.
	pm, msi, msix, express, serial, aer, ari, ltr int

	pmStates    uint8 // a bit for each power state that there is
	pmSoftReset bool
	msixAreas   MSIX
	flr         int // offset of the byte that asks for a reset, 0: none
	windows     []spaceWindow
}

// NewSpace makes the header of a function.
func NewSpace(c Config) (*Space, error) {
	if c.Vendor == noVendor {
		return nil, configError("vendor %04x is what a function reads that is not there", c.Vendor)
	}
	if c.Class > 0xffffff {
		return nil, configError("class %#x has more than 24 bits", c.Class)
	}
	if c.InterruptPin > 4 {
		return nil, configError("interrupt pin %d is none of 0 to 4", c.InterruptPin)
	}
	size := SpaceSize
	if c.Express {
		size = ExpressSpaceSize
	}
	s := &Space{
		now:      make([]byte, size),
		initial:  make([]byte, size),
		writable: make([]byte, size),
		clear:    make([]byte, size),
		watch:    make([]Changed, size),
		used:     make([]bool, size),
		link:     offCapPointer,
	}
	s.set16(offVendor, c.Vendor)
	s.set16(offDevice, c.Device)
	s.set8(offRevision, c.Revision)
	s.set8(offClass, uint8(c.Class))
	s.set16(offClass+1, uint16(c.Class>>8))
	s.set16(offSubVendor, c.SubVendor)
	s.set16(offSubDevice, c.SubDevice)
	s.set8(offIntPin, c.InterruptPin)
	s.allow8(offIntLine, 0xff)
	s.allow8(offCacheLine, 0xff) // no meaning on Express, but writable (7.5.1.1.7)
	if err := s.setBARs(c.BARs); err != nil {
		return nil, err
	}
	if err := s.setROM(c.ROMSize); err != nil {
		return nil, err
	}
	s.setCommand()
	return s, nil
}

// Size is the number of bytes in the space.
func (s *Space) Size() int { return len(s.now) }

// Read fills p from offset off, at any alignment and length within the space.
func (s *Space) Read(off int, p []byte) error {
	if err := s.check(off, len(p)); err != nil {
		return err
	}
	s.look(off, len(p))
	copy(p, s.now[off:])
	return nil
}

// Write stores p at offset off, at any alignment and length within the space, as
// far as the bits are writable, and tells what that changed.
func (s *Space) Write(off int, p []byte) (Changed, error) {
	if err := s.check(off, len(p)); err != nil {
		return 0, err
	}
	power := s.PowerState()
	var changed Changed
	for i, v := range p {
		i += off
		old := s.now[i]
		b := old&^s.writable[i] | v&s.writable[i]
		b &^= v & s.clear[i]
		s.now[i] = b
		if b != old {
			changed |= s.watch[i]
		}
	}
	if changed&ChangedPM != 0 {
		changed = changed&^ChangedPM | s.settlePower(power)
	}
	if s.flr != 0 && off <= s.flr && s.flr < off+len(p) && p[s.flr-off]&flrBit != 0 {
		changed |= RequestedReset
	}
	s.tell(off, len(p))
	return changed, nil
}

// Set puts p at off, whatever is writable: what the function itself shows, such as an
// error in a status register. A reset takes it back.
func (s *Space) Set(off int, p []byte) error {
	if err := s.check(off, len(p)); err != nil {
		return err
	}
	copy(s.now[off:], p)
	return nil
}

// Reset puts everything back to its state at power-on.
func (s *Space) Reset() { copy(s.now, s.initial) }

// Release takes back what a driver has enabled that is gone, and tells what that changed:
// the command register, and MSI and MSI-X. Without it the next one would find its pin
// disabled because the last one had used messages. All else stays.
func (s *Space) Release() (changed Changed) {
	const drivers = ChangedCommand | ChangedMSI | ChangedMSIX
	for i, what := range s.watch {
		if what&drivers != 0 && s.now[i] != s.initial[i] {
			s.now[i] = s.initial[i]
			changed |= what
		}
	}
	return changed
}

func (s *Space) check(off, n int) error {
	if off < 0 || off > len(s.now) || n > len(s.now)-off {
		return rangeError(off, n, len(s.now))
	}
	return nil
}

// The set functions lay down power-on values, the allow functions make bits writable.

func (s *Space) set8(off int, v uint8) {
	s.initial[off], s.now[off] = v, v
}

func (s *Space) set16(off int, v uint16) {
	binary.LittleEndian.PutUint16(s.initial[off:], v)
	binary.LittleEndian.PutUint16(s.now[off:], v)
}

func (s *Space) set32(off int, v uint32) {
	binary.LittleEndian.PutUint32(s.initial[off:], v)
	binary.LittleEndian.PutUint32(s.now[off:], v)
}

func (s *Space) allow8(off int, mask uint8) { s.writable[off] = mask }

func (s *Space) allow16(off int, mask uint16) {
	binary.LittleEndian.PutUint16(s.writable[off:], mask)
}

func (s *Space) allow32(off int, mask uint32) {
	binary.LittleEndian.PutUint32(s.writable[off:], mask)
}

func (s *Space) clear16(off int, mask uint16) {
	binary.LittleEndian.PutUint16(s.clear[off:], mask)
}

func (s *Space) clear32(off int, mask uint32) {
	binary.LittleEndian.PutUint32(s.clear[off:], mask)
}

func (s *Space) watchRange(off, n int, what Changed) {
	for i := range n {
		s.watch[off+i] = what
	}
}

func (s *Space) get16(off int) uint16 { return binary.LittleEndian.Uint16(s.now[off:]) }

func (s *Space) get32(off int) uint32 { return binary.LittleEndian.Uint32(s.now[off:]) }
