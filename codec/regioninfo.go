package codec

import "encoding/binary"

// RegionInfoSize is the size of GET_REGION_INFO's request, and of its reply
// without capabilities, in bytes.
const RegionInfoSize = 32

// RegionFlags say what a client may do with a region (VFIO_REGION_INFO_FLAG_*).
type RegionFlags uint32

const (
	RegionFlagRead  RegionFlags = 1 << 0
	RegionFlagWrite RegionFlags = 1 << 1
	RegionFlagMmap  RegionFlags = 1 << 2
	RegionFlagCaps  RegionFlags = 1 << 3 // CapOffset is valid
)

// Region indexes of a PCI device (VFIO_PCI_*_REGION_INDEX). What lies beyond them is the
// device's own and has a type.
const (
	RegionBAR0 = iota
	RegionBAR1
	RegionBAR2
	RegionBAR3
	RegionBAR4
	RegionBAR5
	RegionROM
	RegionConfig
	RegionVGA
	NumRegions
)

const (
	capHeaderSize  = 8                 // struct vfio_info_cap_header
	capSparseMmap  = 1                 // VFIO_REGION_INFO_CAP_SPARSE_MMAP
	capType        = 2                 // VFIO_REGION_INFO_CAP_TYPE
	sparseHeadSize = capHeaderSize + 8 // nr_areas, reserved
	sparseAreaSize = 16
	typeSize       = capHeaderSize + 8
)

// Area is a part of a region, such as one that can be mmapped. Offset counts from the
// start of the region, both are bytes.
type Area struct{ Offset, Size uint64 }

// RegionType says what a region of the device's own is (VFIO_REGION_TYPE_*). The zero
// value is no type.
type RegionType struct{ Type, Subtype uint32 }

// RegionTypePCIVendor in a RegionType.Type goes with a PCI vendor id in the lower bits,
// who then assigns the subtypes.
const RegionTypePCIVendor uint32 = 1 << 31

// RegionInfo is the request, in which only ArgSz and Index count, and the reply.
type RegionInfo struct {
	ArgSz     uint32 // request: room for the reply; reply: what the whole takes, bytes
	Flags     RegionFlags
	Index     uint32
	CapOffset uint32     // of the first capability, from the start of the payload
	Size      uint64     // bytes
	Offset    uint64     // of the region in its descriptor's file, bytes
	Sparse    []Area     // what can be mmapped; none: all or nothing, as Flags say
	Type      RegionType // zero: one of the indexes above
}

// DecodeRequest reads a request. It may be longer than the structure: SPDK's is as
// long as the reply that it has room for.
func (m *RegionInfo) DecodeRequest(b []byte) error {
	return m.decodeHead(b)
}

// DecodeReply reads a reply. Sparse is overwritten and grows only if it has no
// room. A reply that was cut because the request's argsz was too small has no
// capabilities: see Truncated.
func (m *RegionInfo) DecodeReply(b []byte) error {
	if err := m.decodeHead(b); err != nil {
		return err
	}
	if m.Flags&RegionFlagCaps == 0 || m.Truncated(len(b)) {
		return nil
	}
	return m.decodeCaps(b[:m.ArgSz])
}

// Truncated tells of a reply with a payload of n bytes whether there is more to be
// had by asking again with ArgSz.
func (m *RegionInfo) Truncated(n int) bool { return uint64(m.ArgSz) > uint64(n) }

func (m *RegionInfo) decodeHead(b []byte) error {
	if len(b) < RegionInfoSize {
		return invalid(CmdGetRegionInfo, ErrShort, "payload needs 32 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = RegionFlags(binary.NativeEndian.Uint32(b[4:]))
	m.Index = binary.NativeEndian.Uint32(b[8:])
	m.CapOffset = binary.NativeEndian.Uint32(b[12:])
	m.Size = binary.NativeEndian.Uint64(b[16:])
	m.Offset = binary.NativeEndian.Uint64(b[24:])
	m.Sparse, m.Type = m.Sparse[:0], RegionType{}
	if m.ArgSz < RegionInfoSize {
		return invalid(CmdGetRegionInfo, ErrSize, "argsz is smaller than 32")
	}
	return nil
}

// decodeCaps walks the list of capabilities and takes those that it knows. Links must lead
// forward, so the walk ends, and to behind what was taken, so that no area counts twice: the
// list would grow with the square of the payload.
func (m *RegionInfo) decodeCaps(b []byte) error {
	size := uint32(len(b))
	low := uint32(RegionInfoSize)
	for off := m.CapOffset; off != 0; {
		if off < low || off > size || size-off < capHeaderSize {
			return invalid(CmdGetRegionInfo, ErrRange, "capability lies outside of the payload, in another one, or is linked backwards")
		}
		taken, err := uint32(capHeaderSize), error(nil)
		switch binary.NativeEndian.Uint16(b[off:]) {
		case capSparseMmap:
			taken, err = m.decodeSparse(b[off:])
		case capType:
			taken, err = m.decodeType(b[off:])
		}
		if err != nil {
			return err
		}
		low = off + taken
		off = binary.NativeEndian.Uint32(b[off+4:])
	}
	return nil
}

// decodeSparse takes the areas and tells the size of the capability in bytes.
func (m *RegionInfo) decodeSparse(b []byte) (size uint32, err error) {
	if len(b) < sparseHeadSize {
		return 0, invalid(CmdGetRegionInfo, ErrShort, "sparse mmap capability is cut")
	}
	n := binary.NativeEndian.Uint32(b[capHeaderSize:])
	b = b[sparseHeadSize:]
	if uint64(n)*sparseAreaSize > uint64(len(b)) {
		return 0, invalid(CmdGetRegionInfo, ErrSize, "sparse mmap areas are cut")
	}
	for range n {
		a := Area{binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])}
		if a.Offset > m.Size || a.Size > m.Size-a.Offset {
			return 0, invalid(CmdGetRegionInfo, ErrRange, "sparse mmap area lies outside of the region")
		}
		m.Sparse = append(m.Sparse, a)
		b = b[sparseAreaSize:]
	}
	return sparseHeadSize + n*sparseAreaSize, nil
}

func (m *RegionInfo) decodeType(b []byte) (size uint32, err error) {
	if len(b) < typeSize {
		return 0, invalid(CmdGetRegionInfo, ErrShort, "type capability is cut")
	}
	m.Type = RegionType{
		binary.NativeEndian.Uint32(b[capHeaderSize:]),
		binary.NativeEndian.Uint32(b[capHeaderSize+4:]),
	}
	return typeSize, nil
}

// AppendRequest appends the request.
func (m *RegionInfo) AppendRequest(dst []byte) []byte {
	return m.appendHead(dst)
}

// AppendReply appends the reply to a request that has room for argsz bytes. ArgSz,
// CapOffset and RegionFlagCaps follow from Sparse and Type and are set in m. If argsz is
// too small, the reply is the structure alone, which tells the size to ask again with;
// its CapOffset is valid all the same, since QEMU checks it there already.
func (m *RegionInfo) AppendReply(dst []byte, argsz uint32) []byte {
	sparseSize, typed := uint32(0), m.Type != RegionType{}
	m.ArgSz, m.CapOffset = RegionInfoSize, 0
	m.Flags &^= RegionFlagCaps
	if len(m.Sparse) > 0 {
		sparseSize = sparseHeadSize + uint32(len(m.Sparse))*sparseAreaSize
		m.ArgSz += sparseSize
	}
	if typed {
		m.ArgSz += typeSize
	}
	if m.ArgSz > RegionInfoSize {
		m.CapOffset = RegionInfoSize
		m.Flags |= RegionFlagCaps
	}
	dst = m.appendHead(dst)
	if argsz < m.ArgSz {
		return dst
	}
	if len(m.Sparse) > 0 {
		next := uint32(0)
		if typed {
			next = RegionInfoSize + sparseSize
		}
		dst = m.appendSparse(dst, next)
	}
	if typed {
		dst = appendCapHeader(dst, capType, 0)
		dst = binary.NativeEndian.AppendUint32(dst, m.Type.Type)
		dst = binary.NativeEndian.AppendUint32(dst, m.Type.Subtype)
	}
	return dst
}

func appendCapHeader(dst []byte, id uint16, next uint32) []byte {
	dst = binary.NativeEndian.AppendUint16(dst, id)
	dst = binary.NativeEndian.AppendUint16(dst, 1) // version
	return binary.NativeEndian.AppendUint32(dst, next)
}

func (m *RegionInfo) appendSparse(dst []byte, next uint32) []byte {
	dst = appendCapHeader(dst, capSparseMmap, next)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(len(m.Sparse)))
	dst = binary.NativeEndian.AppendUint32(dst, 0)
	for _, a := range m.Sparse {
		dst = binary.NativeEndian.AppendUint64(dst, a.Offset)
		dst = binary.NativeEndian.AppendUint64(dst, a.Size)
	}
	return dst
}

func (m *RegionInfo) appendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
	dst = binary.NativeEndian.AppendUint32(dst, m.Index)
	dst = binary.NativeEndian.AppendUint32(dst, m.CapOffset)
	dst = binary.NativeEndian.AppendUint64(dst, m.Size)
	return binary.NativeEndian.AppendUint64(dst, m.Offset)
}
