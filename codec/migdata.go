package codec

import "encoding/binary"

// MigDataSize is the size in bytes of what precedes the data of MIG_DATA_READ and
// MIG_DATA_WRITE. The latter's reply has no payload.
const MigDataSize = 8

// MigData is the payload of MIG_DATA_READ, both ways, and of MIG_DATA_WRITE's request.
// Data is part of a read's reply and of a write's request.
type MigData struct {
	ArgSz uint32 // read: largest reply payload that the client takes, bytes
	Size  uint32 // of Data, bytes; a reply with less than was asked for ends the stream
	Data  []byte
}

// DecodeReadRequest reads a MIG_DATA_READ request, which has no data.
func (m *MigData) DecodeReadRequest(b []byte) error {
	if err := m.decodeHead(CmdMigDataRead, b); err != nil {
		return err
	}
	return m.checkArgSz(CmdMigDataRead)
}

// DecodeReadReply reads a MIG_DATA_READ reply; Data aliases b and is Size long. What
// follows it does not count: at the end of the stream libvfio-user's reply is as long as
// the one that was asked for.
func (m *MigData) DecodeReadReply(b []byte) error {
	if err := m.decodeHead(CmdMigDataRead, b); err != nil {
		return err
	}
	b = b[MigDataSize:]
	if uint64(len(b)) < uint64(m.Size) {
		return invalid(CmdMigDataRead, ErrSize, "data is cut")
	}
	m.Data = b[:m.Size:m.Size]
	return m.checkArgSz(CmdMigDataRead)
}

// DecodeWriteRequest reads a MIG_DATA_WRITE request; Data aliases b and is Size long.
func (m *MigData) DecodeWriteRequest(b []byte) error {
	if err := m.decodeHead(CmdMigDataWrite, b); err != nil {
		return err
	}
	m.Data = b[MigDataSize:]
	if uint64(len(m.Data)) != uint64(m.Size) {
		return invalid(CmdMigDataWrite, ErrSize, "size differs from the length of the data")
	}
	return m.checkArgSz(CmdMigDataWrite)
}

func (m *MigData) decodeHead(c Command, b []byte) error {
	if len(b) < MigDataSize {
		return invalid(c, ErrShort, "payload needs 8 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Size = binary.NativeEndian.Uint32(b[4:])
	m.Data = nil
	return nil
}

// checkArgSz refuses an argsz that has no room for the data.
func (m *MigData) checkArgSz(c Command) error {
	if uint64(m.ArgSz) < MigDataSize+uint64(m.Size) {
		return invalid(c, ErrSize, "argsz leaves no room for the data")
	}
	return nil
}

// AppendHead appends the message without data: a read's request, or what precedes data
// that the caller puts into place itself.
func (m *MigData) AppendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	return binary.NativeEndian.AppendUint32(dst, m.Size)
}

// Append appends the message with Data, which must be Size bytes.
func (m *MigData) Append(dst []byte) []byte { return append(m.AppendHead(dst), m.Data...) }
