package codec

import "testing"

func TestDMAAccess(t *testing.T) {
	var m DMAAccess
	for _, tt := range []struct {
		name    string
		command Command
		decode  func([]byte) error
		count   uint64
		data    string
		kind    error
	}{
		{"read request", CmdDMARead, m.DecodeReadRequest, 4, "", nil},
		{"read request of 2^63 bytes", CmdDMARead, m.DecodeReadRequest, 1 << 63, "", nil},
		{"read reply", CmdDMARead, m.DecodeReadReply, 4, "abcd", nil},
		{"read reply, too short", CmdDMARead, m.DecodeReadReply, 4, "abc", ErrSize},
		{"read reply, count of 64 bits", CmdDMARead, m.DecodeReadReply, 1<<32 | 4, "abcd", ErrSize},
		{"write request", CmdDMAWrite, m.DecodeWriteRequest, 4, "abcd", nil},
		{"write request, too long", CmdDMAWrite, m.DecodeWriteRequest, 4, "abcde", ErrSize},
		{"write reply", CmdDMAWrite, m.DecodeWriteReply, 4, "", nil},
		{"write reply, count of 64 bits", CmdDMAWrite, m.DecodeWriteReply, 1<<32 | 4, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.Data = []byte("left from before")
			err := tt.decode(pack(uint64(0x1000), tt.count, tt.data))
			wantError(t, err, tt.command, tt.kind)
			if m.Addr != 0x1000 || m.Count != tt.count || string(m.Data) != tt.data {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// The specification gives the count four bytes in this one place.
func TestDMAWriteReplyByTheLetter(t *testing.T) {
	m := DMAAccess{Data: []byte("left from before")}
	wantError(t, m.DecodeWriteReply(pack(uint64(0x1000), uint32(4))), CmdDMAWrite, nil)
	if m.Addr != 0x1000 || m.Count != 4 || m.Data != nil {
		t.Errorf("got %+v", m)
	}
	for _, n := range []int{0, 11, 13, 15} {
		wantError(t, m.DecodeWriteReply(make([]byte, n)), CmdDMAWrite, ErrShort)
	}
}
