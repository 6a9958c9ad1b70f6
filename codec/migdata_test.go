package codec

import "testing"

func TestMigData(t *testing.T) {
	var m MigData
	for _, tt := range []struct {
		name        string
		command     Command
		decode      func([]byte) error
		argsz, size uint32
		payload     string // behind the head
		data        string // of it
		kind        error
	}{
		{"read request", CmdMigDataRead, m.DecodeReadRequest, 12, 4, "", "", nil},
		{"read request of nothing", CmdMigDataRead, m.DecodeReadRequest, 8, 0, "", "", nil},
		{"read request, argsz has room for more", CmdMigDataRead, m.DecodeReadRequest, 4096, 4, "", "", nil},
		{"read request, longer than its structure", CmdMigDataRead, m.DecodeReadRequest, 12, 4, "more", "", nil},
		{"read request, argsz one byte too small", CmdMigDataRead, m.DecodeReadRequest, 11, 4, "", "", ErrSize},
		{"read request, argsz smaller than the structure", CmdMigDataRead, m.DecodeReadRequest, 7, 0, "", "", ErrSize},
		{"read request of as much as can be said", CmdMigDataRead, m.DecodeReadRequest, ^uint32(0), ^uint32(0) - 8, "", "", nil},
		{"read request, size and head overflow", CmdMigDataRead, m.DecodeReadRequest, 7, ^uint32(0), "", "", ErrSize},
		{"read reply", CmdMigDataRead, m.DecodeReadReply, 12, 4, "abcd", "abcd", nil},
		{"read reply at the end of the stream", CmdMigDataRead, m.DecodeReadReply, 8, 0, "", "", nil},
		{"read reply, libvfio-user's at the end of the stream", CmdMigDataRead, m.DecodeReadReply, 10, 2, "abcd", "ab", nil},
		{"read reply, data cut", CmdMigDataRead, m.DecodeReadReply, 12, 4, "abc", "", ErrSize},
		{"read reply, huge size", CmdMigDataRead, m.DecodeReadReply, ^uint32(0), ^uint32(0), "abcd", "", ErrSize},
		{"read reply, argsz does not count the data", CmdMigDataRead, m.DecodeReadReply, 8, 4, "abcd", "abcd", ErrSize},
		{"write request", CmdMigDataWrite, m.DecodeWriteRequest, 12, 4, "abcd", "abcd", nil},
		{"write request of nothing", CmdMigDataWrite, m.DecodeWriteRequest, 8, 0, "", "", nil},
		{"write request, data cut", CmdMigDataWrite, m.DecodeWriteRequest, 12, 4, "abc", "abc", ErrSize},
		{"write request, too much data", CmdMigDataWrite, m.DecodeWriteRequest, 12, 4, "abcde", "abcde", ErrSize},
		{"write request, argsz one byte too small", CmdMigDataWrite, m.DecodeWriteRequest, 11, 4, "abcd", "abcd", ErrSize},
		{"write request, huge size", CmdMigDataWrite, m.DecodeWriteRequest, ^uint32(0), ^uint32(0), "abcd", "abcd", ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.Data = []byte("left from before")
			err := tt.decode(pack(tt.argsz, tt.size, tt.payload))
			wantError(t, err, tt.command, tt.kind)
			if m.ArgSz != tt.argsz || m.Size != tt.size || string(m.Data) != tt.data {
				t.Errorf("got %+v", m)
			}
		})
	}
	for n := range MigDataSize {
		wantError(t, m.DecodeReadRequest(make([]byte, n)), CmdMigDataRead, ErrShort)
		wantError(t, m.DecodeReadReply(make([]byte, n)), CmdMigDataRead, ErrShort)
		wantError(t, m.DecodeWriteRequest(make([]byte, n)), CmdMigDataWrite, ErrShort)
	}
}

func TestMigDataAliasesThePayload(t *testing.T) {
	b := pack(uint32(12), uint32(4), "abcdmore")
	var m MigData
	wantError(t, m.DecodeReadReply(b), CmdMigDataRead, nil)
	if &m.Data[0] != &b[MigDataSize] {
		t.Error("data was copied")
	}
	if cap(m.Data) != 4 {
		t.Error("who appends to the data writes over what follows it")
	}
}

func TestMigDataHeadIsAllOfAReadRequest(t *testing.T) {
	m := MigData{ArgSz: 12, Size: 4, Data: []byte("abcd")}
	wantBytes(t, m.AppendHead(nil), pack(uint32(12), uint32(4)))
	wantBytes(t, m.Append(nil), pack(uint32(12), uint32(4), "abcd"))
}
