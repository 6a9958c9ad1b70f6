package codec

import "testing"

func TestRegionAccess(t *testing.T) {
	var m RegionAccess
	for _, tt := range []struct {
		name    string
		command Command
		decode  func([]byte) error
		count   uint32
		data    string
		kind    error
	}{
		{"read request", CmdRegionRead, m.DecodeReadRequest, 4, "", nil},
		{"read request, longer than its structure", CmdRegionRead, m.DecodeReadRequest, 4, "more", nil},
		{"read reply", CmdRegionRead, m.DecodeReadReply, 4, "abcd", nil},
		{"read reply of nothing", CmdRegionRead, m.DecodeReadReply, 0, "", nil},
		{"read reply, too short", CmdRegionRead, m.DecodeReadReply, 4, "abc", ErrSize},
		{"read reply, too long", CmdRegionRead, m.DecodeReadReply, 4, "abcde", ErrSize},
		{"write request", CmdRegionWrite, m.DecodeWriteRequest, 4, "abcd", nil},
		{"write request without data", CmdRegionWrite, m.DecodeWriteRequest, 4, "", ErrSize},
		{"write request, too long", CmdRegionWrite, m.DecodeWriteRequest, 4, "abcde", ErrSize},
		{"write request, huge count", CmdRegionWrite, m.DecodeWriteRequest, ^uint32(0), "abcd", ErrSize},
		{"write reply", CmdRegionWrite, m.DecodeWriteReply, 4, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.Data = []byte("left from before")
			err := tt.decode(pack(uint64(0x1000), uint32(2), tt.count, tt.data))
			wantError(t, err, tt.command, tt.kind)
			if m.Offset != 0x1000 || m.Region != 2 || m.Count != tt.count {
				t.Errorf("got %+v", m)
			}
			withData := tt.data != "" && tt.data != "more"
			if withData && string(m.Data) != tt.data || !withData && len(m.Data) != 0 {
				t.Errorf("data %q, want %q", m.Data, tt.data)
			}
		})
	}
}

func TestRegionAccessDataAliasesThePayload(t *testing.T) {
	b := pack(uint64(0), uint32(0), uint32(2), "ab")
	var m RegionAccess
	wantError(t, m.DecodeWriteRequest(b), CmdRegionWrite, nil)
	if &m.Data[0] != &b[RegionAccessSize] {
		t.Error("data was copied")
	}
}

func TestRegionAccessHeadIsAllOfAWriteReply(t *testing.T) {
	m := RegionAccess{Offset: 8, Region: 7, Count: 2, Data: []byte("ab")}
	wantBytes(t, m.AppendHead(nil), pack(uint64(8), uint32(7), uint32(2)))
}
