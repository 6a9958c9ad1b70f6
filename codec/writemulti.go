package codec

import "encoding/binary"

const (
	// WriteMultiSize is the size in bytes of what precedes the writes of
	// REGION_WRITE_MULTI, and of its reply.
	WriteMultiSize = 8
	// SingleWriteSize is the size of one write of REGION_WRITE_MULTI in bytes.
	SingleWriteSize = RegionAccessSize + MaxSingleWrite
	// MaxSingleWrite is the most that one of them writes, in bytes.
	MaxSingleWrite = 8
)

// WriteMulti is the payload of REGION_WRITE_MULTI: several small writes, to be done in
// order. The reply has their number alone.
type WriteMulti struct {
	Count  uint64 // writes; of a reply: writes that were done
	Writes []byte // SingleWriteSize bytes for each; see Write and AppendWrite
}

// DecodeRequest reads a request and checks each write's size; Writes aliases b.
func (m *WriteMulti) DecodeRequest(b []byte) error {
	if err := m.DecodeReply(b); err != nil {
		return err
	}
	m.Writes = b[WriteMultiSize:]
	if m.Count == 0 {
		return invalid(CmdRegionWriteMulti, ErrRange, "no writes")
	}
	if m.Count > uint64(len(m.Writes)) || m.Count*SingleWriteSize != uint64(len(m.Writes)) {
		return invalid(CmdRegionWriteMulti, ErrSize, "number of writes differs from the length of the data")
	}
	for i := range int(m.Count) {
		if binary.NativeEndian.Uint32(m.Writes[i*SingleWriteSize+12:]) > MaxSingleWrite {
			return invalid(CmdRegionWriteMulti, ErrRange, "a write of more than 8 bytes")
		}
	}
	return nil
}

// DecodeReply reads a reply.
func (m *WriteMulti) DecodeReply(b []byte) error {
	if len(b) < WriteMultiSize {
		return invalid(CmdRegionWriteMulti, ErrShort, "payload needs 8 bytes")
	}
	m.Count = binary.NativeEndian.Uint64(b)
	m.Writes = nil
	return nil
}

// Write is write i of a decoded request; its Data aliases Writes. It panics if there is
// no such write.
func (m *WriteMulti) Write(i int) RegionAccess {
	_ = m.Writes[(i+1)*SingleWriteSize-1] // what lies behind may have capacity
	b := m.Writes[i*SingleWriteSize : (i+1)*SingleWriteSize]
	a := RegionAccess{
		Offset: binary.NativeEndian.Uint64(b[0:]),
		Region: binary.NativeEndian.Uint32(b[8:]),
		Count:  binary.NativeEndian.Uint32(b[12:]),
	}
	a.Data = b[RegionAccessSize : RegionAccessSize+a.Count]
	return a
}

// AppendHead appends the number of writes: a reply, or what precedes the writes that the
// caller appends with AppendWrite.
func (m *WriteMulti) AppendHead(dst []byte) []byte {
	return binary.NativeEndian.AppendUint64(dst, m.Count)
}

// Append appends the request.
func (m *WriteMulti) Append(dst []byte) []byte { return append(m.AppendHead(dst), m.Writes...) }

// AppendWrite appends one write to the Writes of a request. Its Data must be Count bytes,
// MaxSingleWrite at most.
func AppendWrite(dst []byte, a RegionAccess) []byte {
	var data [MaxSingleWrite]byte
	copy(data[:], a.Data)
	return append(a.AppendHead(dst), data[:]...)
}
