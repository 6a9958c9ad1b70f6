package codec

import "encoding/binary"

// RegionAccessSize is the size in bytes of what precedes the data of REGION_READ
// and REGION_WRITE.
const RegionAccessSize = 16

// RegionAccess is the payload of REGION_READ and REGION_WRITE, both ways. Data is
// part of a read's reply and of a write's request.
type RegionAccess struct {
	Offset uint64 // in the region, bytes
	Region uint32 // index
	Count  uint32 // bytes
	Data   []byte
}

// DecodeReadRequest reads a REGION_READ request, which has no data.
func (m *RegionAccess) DecodeReadRequest(b []byte) error {
	return m.decodeHead(CmdRegionRead, b)
}

// DecodeReadReply reads a REGION_READ reply; Data aliases b and is Count long.
func (m *RegionAccess) DecodeReadReply(b []byte) error {
	return m.decodeWithData(CmdRegionRead, b)
}

// DecodeWriteRequest reads a REGION_WRITE request; Data aliases b and is Count long.
func (m *RegionAccess) DecodeWriteRequest(b []byte) error {
	return m.decodeWithData(CmdRegionWrite, b)
}

// DecodeWriteReply reads a REGION_WRITE reply, which has no data.
func (m *RegionAccess) DecodeWriteReply(b []byte) error {
	return m.decodeHead(CmdRegionWrite, b)
}

func (m *RegionAccess) decodeHead(c Command, b []byte) error {
	if len(b) < RegionAccessSize {
		return invalid(c, ErrShort, "payload needs 16 bytes")
	}
	m.Offset = binary.NativeEndian.Uint64(b[0:])
	m.Region = binary.NativeEndian.Uint32(b[8:])
	m.Count = binary.NativeEndian.Uint32(b[12:])
	m.Data = nil
	return nil
}

func (m *RegionAccess) decodeWithData(c Command, b []byte) error {
	if err := m.decodeHead(c, b); err != nil {
		return err
	}
	m.Data = b[RegionAccessSize:]
	if uint64(len(m.Data)) != uint64(m.Count) {
		return invalid(c, ErrSize, "count differs from the length of the data")
	}
	return nil
}

// AppendHead appends the message without data: a read's request, a write's reply,
// or what precedes data that the caller puts into place itself.
func (m *RegionAccess) AppendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint64(dst, m.Offset)
	dst = binary.NativeEndian.AppendUint32(dst, m.Region)
	return binary.NativeEndian.AppendUint32(dst, m.Count)
}

// Append appends the message with Data, which must be Count bytes.
func (m *RegionAccess) Append(dst []byte) []byte {
	return append(m.AppendHead(dst), m.Data...)
}
