package spec

import "encoding/binary"

// Operations of Namespace Management and of Namespace Attachment, in the SEL field, bits 3:0 of
// CDW10 (Base 2.0, 5.23 and 5.22).
const (
	NamespaceCreate = 0
	NamespaceDelete = 1
	NamespaceAttach = 0
	NamespaceDetach = 1
)

// Bits of NMIC.
const NMICShared = 1 << 0 // several controllers may have the namespace at the same time

// FPISupported is the bit of FPI that says that its other bits are what remains of a format,
// in percent.
const FPISupported = 1 << 7

// MaxListControllers is how many identifiers one controller list holds.
const MaxListControllers = IdentifySize/2 - 1

// PutControllerList writes a controller list: the number of identifiers, and up to 2,047
// ascending identifiers (Base 2.0, 4.6.1).
func PutControllerList(b []byte, ids []uint16) {
	b = b[:IdentifySize]
	clear(b)
	ids = ids[:min(len(ids), MaxListControllers)]
	binary.LittleEndian.PutUint16(b, uint16(len(ids)))
	for i, id := range ids {
		binary.LittleEndian.PutUint16(b[2+2*i:], id)
	}
}

// ControllerList reads a controller list; false means that it says it has more identifiers
// than there is room for.
func ControllerList(b []byte) (ids []uint16, ok bool) {
	n := int(binary.LittleEndian.Uint16(b))
	if n > MaxListControllers {
		return nil, false
	}
	for i := range n {
		ids = append(ids, binary.LittleEndian.Uint16(b[2+2*i:]))
	}
	return ids, true
}

// FormatNVM is CDW10 of Format NVM (Base 2.0, 5.14).
type FormatNVM struct {
	Format     uint8 // LBAFU and LBAFL
	Extended   bool  // MSET: metadata is transferred at the end of each block
	Protection uint8 // PI: type of the protection information, 0: none
	First      bool  // PIL: it is in the first bytes of the metadata, not the last
	Erase      uint8 // SES
}

// Values of the Secure Erase Settings.
const (
	EraseNone   = 0
	EraseUser   = 1
	EraseCrypto = 2
)

// Word is CDW10.
func (f *FormatNVM) Word() uint32 {
	w := uint32(f.Format&0xf) | uint32(f.Format>>4&3)<<12 | uint32(f.Protection&7)<<5 | uint32(f.Erase&7)<<9
	if f.Extended {
		w |= 1 << 4
	}
	if f.First {
		w |= 1 << 8
	}
	return w
}

// SetWord reads CDW10.
func (f *FormatNVM) SetWord(w uint32) {
	*f = FormatNVM{
		Format: uint8(w&0xf | w>>12&3<<4), Extended: w>>4&1 != 0, Protection: uint8(w >> 5 & 7),
		First: w>>8&1 != 0, Erase: uint8(w >> 9 & 7),
	}
}
