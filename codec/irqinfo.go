package codec

import "encoding/binary"

// IRQInfoSize is the size of GET_IRQ_INFO's payload in bytes, both ways.
const IRQInfoSize = 16

// IRQFlags say what can be done with a type of interrupt (VFIO_IRQ_INFO_*).
type IRQFlags uint32

const (
	IRQInfoEventfd    IRQFlags = 1 << 0 // can be signalled through an eventfd
	IRQInfoMaskable   IRQFlags = 1 << 1 // takes MASK and UNMASK
	IRQInfoAutomasked IRQFlags = 1 << 2 // masks itself when it fires
	IRQInfoNoResize   IRQFlags = 1 << 3 // vectors can only be set up all together
)

// IRQInfo is the request, in which only ArgSz and Index count, and the reply.
type IRQInfo struct {
	ArgSz uint32 // request: room for the reply; reply: what it takes, bytes
	Flags IRQFlags
	Index IRQIndex
	Count uint32 // vectors of the index
}

// Decode reads a request or a reply.
func (m *IRQInfo) Decode(b []byte) error {
	if len(b) < IRQInfoSize {
		return invalid(CmdGetIRQInfo, ErrShort, "payload needs 16 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = IRQFlags(binary.NativeEndian.Uint32(b[4:]))
	m.Index = IRQIndex(binary.NativeEndian.Uint32(b[8:]))
	m.Count = binary.NativeEndian.Uint32(b[12:])
	if m.ArgSz < IRQInfoSize {
		return invalid(CmdGetIRQInfo, ErrSize, "argsz is smaller than 16")
	}
	return nil
}

// Append appends a request or a reply.
func (m *IRQInfo) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Index))
	return binary.NativeEndian.AppendUint32(dst, m.Count)
}
