package codec

import "encoding/binary"

// IRQInfoSize is the size of GET_IRQ_INFO's payload in bytes, both ways.
const IRQInfoSize = 16

// IRQ flags (VFIO_IRQ_INFO_*).
const (
	IRQInfoEventfd    uint32 = 1 << 0 // can be signalled through an eventfd
	IRQInfoMaskable   uint32 = 1 << 1 // takes MASK and UNMASK
	IRQInfoAutomasked uint32 = 1 << 2 // masks itself when it fires
	IRQInfoNoResize   uint32 = 1 << 3 // vectors can only be set up all together
)

// IRQInfo is the request, in which only ArgSz and Index count, and the reply.
type IRQInfo struct {
	ArgSz uint32 // request: room for the reply; reply: what it takes, bytes
	Flags uint32 // IRQInfo*
	Index uint32
	Count uint32 // vectors of the index
}

// Decode reads a request or a reply.
func (m *IRQInfo) Decode(b []byte) error {
	if len(b) < IRQInfoSize {
		return invalid(CmdGetIRQInfo, ErrShort, "payload needs 16 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = binary.NativeEndian.Uint32(b[4:])
	m.Index = binary.NativeEndian.Uint32(b[8:])
	m.Count = binary.NativeEndian.Uint32(b[12:])
	if m.ArgSz < IRQInfoSize {
		return invalid(CmdGetIRQInfo, ErrSize, "argsz is smaller than 16")
	}
	return nil
}

// Append appends a request or a reply.
func (m *IRQInfo) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, m.Flags)
	dst = binary.NativeEndian.AppendUint32(dst, m.Index)
	return binary.NativeEndian.AppendUint32(dst, m.Count)
}
