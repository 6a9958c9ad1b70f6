package spec

import "encoding/binary"

// PSDT values: how the data pointer of a command is to be read (Base 1.4, 4.2).
const (
	PSDTPRP        = 0 // PRP entries
	PSDTSGL        = 1 // SGL; metadata, if any, is one buffer
	PSDTSGLSegment = 2 // SGL; metadata, if any, has an SGL too
)

// SGLDescriptorSize is the size of an SGL descriptor in bytes.
const SGLDescriptorSize = 16

// SGL descriptor types (Base 1.4, 4.4.1).
const (
	SGLDataBlock   = 0x0
	SGLBitBucket   = 0x1
	SGLSegment     = 0x2
	SGLLastSegment = 0x3
)

// SGLDescriptor is one descriptor of a scatter gather list.
type SGLDescriptor struct {
	Address uint64
	Word    uint64 // length in bits 31:0, sub type in 59:56, type in 63:60
}

// GetSGLDescriptor reads a descriptor from the first 16 bytes of b.
func GetSGLDescriptor(b []byte) SGLDescriptor {
	return SGLDescriptor{Address: binary.LittleEndian.Uint64(b), Word: binary.LittleEndian.Uint64(b[8:])}
}

// NewSGLDescriptor makes a descriptor of a type with sub type 0, which is an address.
func NewSGLDescriptor(kind uint8, address uint64, length uint32) SGLDescriptor {
	return SGLDescriptor{Address: address, Word: uint64(kind)<<60 | uint64(length)}
}

// Put writes the descriptor to the first 16 bytes of b.
func (d SGLDescriptor) Put(b []byte) {
	binary.LittleEndian.PutUint64(b, d.Address)
	binary.LittleEndian.PutUint64(b[8:], d.Word)
}

// Length is in bytes.
func (d SGLDescriptor) Length() uint32 { return uint32(d.Word) }

// Type is the descriptor type in bits 3:0 and the sub type, which is 0 on PCIe, above:
// a descriptor with another sub type has none of the known types.
func (d SGLDescriptor) Type() uint8 { return uint8(d.Word>>60) | uint8(d.Word>>56)<<4 }
