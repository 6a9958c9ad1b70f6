package codec

import "encoding/binary"

// DMAUnmapSize is the size of DMA_UNMAP in bytes, both ways; a dirty bitmap comes on top.
const DMAUnmapSize = 24

// BitmapSize is the size in bytes of what precedes the bits of a dirty bitmap.
const BitmapSize = 16

// UnmapFlags say what is to be unmapped and what is to be reported.
type UnmapFlags uint32

const (
	UnmapFlagGetDirtyBitmap UnmapFlags = 1 << 0 // report what was written
	UnmapFlagAll            UnmapFlags = 1 << 1 // every region; Addr and Size are 0
)

// DMAUnmap asks the server to forget a region. The reply echoes the request.
type DMAUnmap struct {
	ArgSz  uint32 // largest reply payload that the client takes, bytes
	Flags  UnmapFlags
	Addr   uint64 // IOVA
	Size   uint64 // bytes
	Bitmap Bitmap // with UnmapFlagGetDirtyBitmap only
}

// Bitmap is Linux' struct vfio_bitmap followed, in a reply, by its bits.
type Bitmap struct {
	PgSize uint64 // bytes of memory to a bit
	Size   uint64 // of Data, bytes
	Data   []byte
}

// DecodeRequest reads a request. ArgSz has room for the bitmap that is asked for,
// but how large both may be is for the caller to bound.
func (m *DMAUnmap) DecodeRequest(b []byte) error {
	if err := m.decodeHead(b); err != nil {
		return err
	}
	if m.Flags&UnmapFlagGetDirtyBitmap != 0 && uint64(m.ArgSz)-DMAUnmapSize-BitmapSize < m.Bitmap.Size {
		return invalid(CmdDMAUnmap, ErrSize, "argsz leaves no room for the bitmap")
	}
	return nil
}

// DecodeReply reads a reply; Bitmap.Data aliases b.
func (m *DMAUnmap) DecodeReply(b []byte) error {
	if err := m.decodeHead(b); err != nil {
		return err
	}
	if m.Flags&UnmapFlagGetDirtyBitmap != 0 {
		m.Bitmap.Data = b[DMAUnmapSize+BitmapSize:]
		if uint64(len(m.Bitmap.Data)) != m.Bitmap.Size {
			return invalid(CmdDMAUnmap, ErrSize, "bitmap is not as long as it says")
		}
	}
	return nil
}

func (m *DMAUnmap) decodeHead(b []byte) error {
	if len(b) < DMAUnmapSize {
		return invalid(CmdDMAUnmap, ErrShort, "payload needs 24 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = UnmapFlags(binary.NativeEndian.Uint32(b[4:]))
	m.Addr = binary.NativeEndian.Uint64(b[8:])
	m.Size = binary.NativeEndian.Uint64(b[16:])
	m.Bitmap = Bitmap{}
	need := uint32(DMAUnmapSize)
	switch m.Flags {
	case 0:
	case UnmapFlagAll:
		if m.Addr != 0 || m.Size != 0 {
			return invalid(CmdDMAUnmap, ErrRange, "address and size must be 0 to unmap all")
		}
	case UnmapFlagGetDirtyBitmap:
		need += BitmapSize
		if len(b) < DMAUnmapSize+BitmapSize {
			return invalid(CmdDMAUnmap, ErrShort, "payload with a bitmap needs 40 bytes")
		}
		m.Bitmap.PgSize = binary.NativeEndian.Uint64(b[24:])
		m.Bitmap.Size = binary.NativeEndian.Uint64(b[32:])
	default:
		return invalid(CmdDMAUnmap, ErrFlags, "flags are none of 0, GET_DIRTY_BITMAP, ALL")
	}
	if m.ArgSz < need {
		return invalid(CmdDMAUnmap, ErrSize, "argsz is smaller than the structure")
	}
	return nil
}

// Append appends a request or a reply, which is the one that has Bitmap.Data.
func (m *DMAUnmap) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
	dst = binary.NativeEndian.AppendUint64(dst, m.Addr)
	dst = binary.NativeEndian.AppendUint64(dst, m.Size)
	if m.Flags&UnmapFlagGetDirtyBitmap != 0 {
		dst = binary.NativeEndian.AppendUint64(dst, m.Bitmap.PgSize)
		dst = binary.NativeEndian.AppendUint64(dst, m.Bitmap.Size)
		dst = append(dst, m.Bitmap.Data...)
	}
	return dst
}
