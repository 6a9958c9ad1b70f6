package codec

import "encoding/binary"

// DMAMapSize is the size of DMA_MAP's request in bytes. Its reply has no payload.
const DMAMapSize = 32

// DMAFlags are the attributes of a DMA region.
type DMAFlags uint32

const (
	DMAFlagRead  DMAFlags = 1 << 0 // the server may read it
	DMAFlagWrite DMAFlags = 1 << 1 // the server may write it
	// The next two come from libvfio-user, say how the descriptor is to be used,
	// exclude each other and need a descriptor. Without them a descriptor is mmapped.
	DMAFlagMmap   DMAFlags = 1 << 2
	DMAFlagFileIO DMAFlags = 1 << 3

	dmaFlagsAll = DMAFlagRead | DMAFlagWrite | DMAFlagMmap | DMAFlagFileIO
)

// DMAMap asks the server to learn a region of client memory.
type DMAMap struct {
	ArgSz  uint32 // at least DMAMapSize
	Flags  DMAFlags
	Offset uint64 // of the region in the descriptor's file, bytes
	Addr   uint64 // IOVA of its first byte
	Size   uint64 // bytes
}

// Decode reads a request. Addresses and sizes are not judged here.
func (m *DMAMap) Decode(b []byte) error {
	if len(b) < DMAMapSize {
		return invalid(CmdDMAMap, ErrShort, "payload needs 32 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = DMAFlags(binary.NativeEndian.Uint32(b[4:]))
	m.Offset = binary.NativeEndian.Uint64(b[8:])
	m.Addr = binary.NativeEndian.Uint64(b[16:])
	m.Size = binary.NativeEndian.Uint64(b[24:])
	if m.ArgSz < DMAMapSize {
		return invalid(CmdDMAMap, ErrSize, "argsz is smaller than 32")
	}
	if m.Flags&^dmaFlagsAll != 0 {
		return invalid(CmdDMAMap, ErrFlags, "unknown flag")
	}
	if m.Flags&DMAFlagMmap != 0 && m.Flags&DMAFlagFileIO != 0 {
		return invalid(CmdDMAMap, ErrFlags, "MMAP and FILE_IO exclude each other")
	}
	return nil
}

// Append appends the request.
func (m *DMAMap) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
	dst = binary.NativeEndian.AppendUint64(dst, m.Offset)
	dst = binary.NativeEndian.AppendUint64(dst, m.Addr)
	return binary.NativeEndian.AppendUint64(dst, m.Size)
}
