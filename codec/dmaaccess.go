package codec

import "encoding/binary"

// DMAAccessSize is the size in bytes of what precedes the data of DMA_READ and DMA_WRITE.
const DMAAccessSize = 16

// dmaWriteReplyMin: the specification gives the count of DMA_WRITE's reply four
// bytes; QEMU and libvfio-user give it eight, as everywhere else.
const dmaWriteReplyMin = 12

// DMAAccess is the payload of DMA_READ and DMA_WRITE, both ways; the server asks.
// Data is part of a read's reply and of a write's request.
type DMAAccess struct {
	Addr  uint64 // IOVA
	Count uint64 // bytes
	Data  []byte
}

// DecodeReadRequest reads a DMA_READ request, which has no data.
func (m *DMAAccess) DecodeReadRequest(b []byte) error {
	return m.decodeHead(CmdDMARead, b)
}

// DecodeReadReply reads a DMA_READ reply; Data aliases b and is Count long.
func (m *DMAAccess) DecodeReadReply(b []byte) error {
	return m.decodeWithData(CmdDMARead, b)
}

// DecodeWriteRequest reads a DMA_WRITE request; Data aliases b and is Count long.
func (m *DMAAccess) DecodeWriteRequest(b []byte) error {
	return m.decodeWithData(CmdDMAWrite, b)
}

// DecodeWriteReply reads a DMA_WRITE reply, which has no data, with a count of
// eight bytes or, from a peer that takes the specification by the letter, four.
func (m *DMAAccess) DecodeWriteReply(b []byte) error {
	if len(b) == dmaWriteReplyMin {
		m.Addr = binary.NativeEndian.Uint64(b[0:])
		m.Count = uint64(binary.NativeEndian.Uint32(b[8:]))
		m.Data = nil
		return nil
	}
	return m.decodeHead(CmdDMAWrite, b)
}

func (m *DMAAccess) decodeHead(c Command, b []byte) error {
	if len(b) < DMAAccessSize {
		return invalid(c, ErrShort, "payload needs 16 bytes")
	}
	m.Addr = binary.NativeEndian.Uint64(b[0:])
	m.Count = binary.NativeEndian.Uint64(b[8:])
	m.Data = nil
	return nil
}

func (m *DMAAccess) decodeWithData(c Command, b []byte) error {
	if err := m.decodeHead(c, b); err != nil {
		return err
	}
	m.Data = b[DMAAccessSize:]
	if uint64(len(m.Data)) != m.Count {
		return invalid(c, ErrSize, "count differs from the length of the data")
	}
	return nil
}

// AppendHead appends the message without data: a read's request, a write's reply,
// or what precedes data that the caller puts into place itself.
func (m *DMAAccess) AppendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint64(dst, m.Addr)
	return binary.NativeEndian.AppendUint64(dst, m.Count)
}

// Append appends the message with Data, which must be Count bytes.
func (m *DMAAccess) Append(dst []byte) []byte {
	return append(m.AppendHead(dst), m.Data...)
}
