package spec

import "encoding/binary"

// Bits of NSFEAT.
const (
	NSFeatThin       = 1 << 0
	NSFeatAtomics    = 1 << 1 // NAWUN, NAWUPF and NACWU are valid
	NSFeatDealloc    = 1 << 2 // deallocated blocks are reported as errors
	NSFeatPreferred  = 1 << 4 // NPWG, NPWA, NPDG, NPDA and NOWS are valid
	NSAttrProtected  = 1 << 0 // the namespace is write protected
	DLFEATReadZeroes = 1      // deallocated blocks read as zeroes
	DLFEATWZDealloc  = 1 << 3 // Write Zeroes may deallocate
)

// LBAFormat is a supported logical block format.
type LBAFormat struct {
	MetadataSize uint16
	DataExponent uint8 // the block has 1 << DataExponent bytes
	Performance  uint8 // 0 is best
}

// IdentifyNamespace is what Identify with CNS 00h returns (NVM command set
// 1.0, figure 97). Sizes are in logical blocks.
type IdentifyNamespace struct {
	Size        uint64 // NSZE
	Capacity    uint64 // NCAP
	Utilization uint64 // NUSE
	NSFEAT      uint8
	NLBAF       uint8 // zero based
	FLBAS       uint8
	MC          uint8
	DPC         uint8
	DPS         uint8
	NMIC        uint8
	RESCAP      uint8
	FPI         uint8
	DLFEAT      uint8
	NAWUN       uint16
	NAWUPF      uint16
	NACWU       uint16
	NABSN       uint16
	NABO        uint16
	NABSPF      uint16
	NOIOB       uint16
	NVMCapacity [2]uint64 // bytes
	NPWG        uint16    // zero based, as all granularities are
	NPWA        uint16
	NPDG        uint16
	NPDA        uint16
	NOWS        uint16
	MSSRL       uint16 // blocks of one source range of Copy
	MCL         uint32 // blocks of one Copy
	MSRC        uint8  // source ranges of one Copy, zero based
	NSATTR      uint8  // bit 0: write protected
	ANAGroup    uint32
	NVMSet      uint16
	// EnduranceGroup is the group that the namespace is in, 0: none.
	EnduranceGroup uint16
	NGUID          [16]byte
	EUI64          [8]byte
	Formats        [16]LBAFormat
}

// BlockSize is the size of a logical block in bytes, or 0 for a format that
// no host supports.
func (n *IdentifyNamespace) BlockSize() int {
	e := n.Formats[n.FLBAS&0xf].DataExponent
	if e < 9 || e > 24 {
		return 0
	}
	return 1 << e
}

// Put writes all 4,096 bytes.
func (n *IdentifyNamespace) Put(b []byte) {
	b = b[:IdentifySize]
	clear(b)
	le := binary.LittleEndian
	le.PutUint64(b[0:], n.Size)
	le.PutUint64(b[8:], n.Capacity)
	le.PutUint64(b[16:], n.Utilization)
	b[24] = n.NSFEAT
	b[25] = n.NLBAF
	b[26] = n.FLBAS
	b[27] = n.MC
	b[28] = n.DPC
	b[29] = n.DPS
	b[30] = n.NMIC
	b[31] = n.RESCAP
	b[32] = n.FPI
	b[33] = n.DLFEAT
	le.PutUint16(b[34:], n.NAWUN)
	le.PutUint16(b[36:], n.NAWUPF)
	le.PutUint16(b[38:], n.NACWU)
	le.PutUint16(b[40:], n.NABSN)
	le.PutUint16(b[42:], n.NABO)
	le.PutUint16(b[44:], n.NABSPF)
	le.PutUint16(b[46:], n.NOIOB)
	le.PutUint64(b[48:], n.NVMCapacity[0])
	le.PutUint64(b[56:], n.NVMCapacity[1])
	le.PutUint16(b[64:], n.NPWG)
	le.PutUint16(b[66:], n.NPWA)
	le.PutUint16(b[68:], n.NPDG)
	le.PutUint16(b[70:], n.NPDA)
	le.PutUint16(b[72:], n.NOWS)
	le.PutUint16(b[74:], n.MSSRL)
	le.PutUint32(b[76:], n.MCL)
	b[80] = n.MSRC
	b[99] = n.NSATTR
	le.PutUint32(b[92:], n.ANAGroup)
	le.PutUint16(b[100:], n.NVMSet)
	le.PutUint16(b[102:], n.EnduranceGroup)
	copy(b[104:120], n.NGUID[:])
	copy(b[120:128], n.EUI64[:])
	for i, f := range n.Formats {
		le.PutUint32(b[128+4*i:], uint32(f.MetadataSize)|uint32(f.DataExponent)<<16|uint32(f.Performance&3)<<24)
	}
}

// Get reads all 4,096 bytes.
func (n *IdentifyNamespace) Get(b []byte) {
	b = b[:IdentifySize]
	le := binary.LittleEndian
	*n = IdentifyNamespace{
		Size:           le.Uint64(b[0:]),
		Capacity:       le.Uint64(b[8:]),
		Utilization:    le.Uint64(b[16:]),
		NSFEAT:         b[24],
		NLBAF:          b[25],
		FLBAS:          b[26],
		MC:             b[27],
		DPC:            b[28],
		DPS:            b[29],
		NMIC:           b[30],
		RESCAP:         b[31],
		FPI:            b[32],
		DLFEAT:         b[33],
		NAWUN:          le.Uint16(b[34:]),
		NAWUPF:         le.Uint16(b[36:]),
		NACWU:          le.Uint16(b[38:]),
		NABSN:          le.Uint16(b[40:]),
		NABO:           le.Uint16(b[42:]),
		NABSPF:         le.Uint16(b[44:]),
		NOIOB:          le.Uint16(b[46:]),
		NVMCapacity:    [2]uint64{le.Uint64(b[48:]), le.Uint64(b[56:])},
		NPWG:           le.Uint16(b[64:]),
		NPWA:           le.Uint16(b[66:]),
		NPDG:           le.Uint16(b[68:]),
		NPDA:           le.Uint16(b[70:]),
		NOWS:           le.Uint16(b[72:]),
		MSSRL:          le.Uint16(b[74:]),
		MCL:            le.Uint32(b[76:]),
		MSRC:           b[80],
		NSATTR:         b[99],
		ANAGroup:       le.Uint32(b[92:]),
		NVMSet:         le.Uint16(b[100:]),
		EnduranceGroup: le.Uint16(b[102:]),
		NGUID:          [16]byte(b[104:120]),
		EUI64:          [8]byte(b[120:128]),
	}
	for i := range n.Formats {
		w := le.Uint32(b[128+4*i:])
		n.Formats[i] = LBAFormat{uint16(w), uint8(w >> 16), uint8(w>>24) & 3}
	}
}

// IndependentNamespace is what Identify with CNS 08h returns (Base 2.0,
// figure 280).
type IndependentNamespace struct {
	NSFEAT, NMIC, RESCAP, FPI uint8
	NSATTR                    uint8  // bit 0: write protected
	EnduranceGroup            uint16 // 0: none
	NSTAT                     uint8  // bit 0: ready
}

// Put writes all 4,096 bytes.
func (n *IndependentNamespace) Put(b []byte) {
	b = b[:IdentifySize]
	clear(b)
	b[0], b[1], b[2], b[3], b[8], b[14] = n.NSFEAT, n.NMIC, n.RESCAP, n.FPI, n.NSATTR, n.NSTAT
	binary.LittleEndian.PutUint16(b[12:], n.EnduranceGroup)
}

// Get reads all 4,096 bytes.
func (n *IndependentNamespace) Get(b []byte) {
	b = b[:IdentifySize]
	*n = IndependentNamespace{b[0], b[1], b[2], b[3], b[8], binary.LittleEndian.Uint16(b[12:]), b[14]}
}

// Types of namespace identification descriptors.
const (
	DescriptorEUI64      = 1
	DescriptorNGUID      = 2
	DescriptorUUID       = 3
	DescriptorCommandSet = 4
)

// NamespaceDescriptors is what Identify with CNS 03h returns. A zero
// identifier is absent.
type NamespaceDescriptors struct {
	EUI64      [8]byte
	NGUID      [16]byte
	UUID       [16]byte
	CommandSet uint8 // 0 is the NVM command set; the descriptor is always there
}

// Put writes all 4,096 bytes.
func (d *NamespaceDescriptors) Put(b []byte) {
	b = b[:IdentifySize]
	clear(b)
	put := func(kind uint8, id []byte) {
		b[0], b[1] = kind, uint8(len(id))
		copy(b[4:], id)
		b = b[4+len(id):]
	}
	if d.EUI64 != [8]byte{} {
		put(DescriptorEUI64, d.EUI64[:])
	}
	if d.NGUID != [16]byte{} {
		put(DescriptorNGUID, d.NGUID[:])
	}
	if d.UUID != [16]byte{} {
		put(DescriptorUUID, d.UUID[:])
	}
	put(DescriptorCommandSet, []byte{d.CommandSet})
}

// Get reads all 4,096 bytes and skips descriptors that it does not know.
func (d *NamespaceDescriptors) Get(b []byte) {
	b = b[:IdentifySize]
	*d = NamespaceDescriptors{}
	for len(b) >= 4 && b[1] != 0 && int(b[1]) <= len(b)-4 {
		id := b[4 : 4+int(b[1])]
		switch b[0] {
		case DescriptorEUI64:
			copy(d.EUI64[:], id)
		case DescriptorNGUID:
			copy(d.NGUID[:], id)
		case DescriptorUUID:
			copy(d.UUID[:], id)
		case DescriptorCommandSet:
			d.CommandSet = id[0]
		}
		b = b[4+len(id):]
	}
}

// MaxListNamespaces is how many identifiers one namespace list holds.
const MaxListNamespaces = IdentifySize / 4

// PutNamespaceList writes a namespace list: up to 1,024 ascending identifiers,
// zero terminated.
func PutNamespaceList(b []byte, ids []uint32) {
	b = b[:IdentifySize]
	clear(b)
	for i, id := range ids[:min(len(ids), MaxListNamespaces)] {
		binary.LittleEndian.PutUint32(b[4*i:], id)
	}
}

// NamespaceList reads a namespace list.
func NamespaceList(b []byte) []uint32 {
	b = b[:IdentifySize]
	var ids []uint32
	for ; len(b) > 0; b = b[4:] {
		id := binary.LittleEndian.Uint32(b)
		if id == 0 {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

// PutEnduranceGroupList writes the 4,096 bytes of a list of endurance groups.
func PutEnduranceGroupList(b []byte, ids ...uint16) {
	b = b[:IdentifySize]
	clear(b)
	binary.LittleEndian.PutUint16(b, uint16(len(ids)))
	for i, id := range ids {
		binary.LittleEndian.PutUint16(b[2+2*i:], id)
	}
}

// EnduranceGroupList reads a list of endurance groups.
func EnduranceGroupList(b []byte) []uint16 {
	ids := make([]uint16, min(int(binary.LittleEndian.Uint16(b)), len(b)/2-1))
	for i := range ids {
		ids[i] = binary.LittleEndian.Uint16(b[2+2*i:])
	}
	return ids
}
