package codec

import (
	"reflect"
	"testing"
)

func TestWriteMultiRequest(t *testing.T) {
	write := func(count uint32) []byte {
		return pack(uint64(0x1000), uint32(2), count, "abcdefgh")
	}
	for _, tt := range []struct {
		name   string
		count  uint64
		writes []byte
		kind   error
	}{
		{"one write", 1, write(8), nil},
		{"two writes", 2, pack(write(4), write(1)), nil},
		{"a write of nothing", 1, write(0), nil},
		{"no writes", 0, nil, ErrRange},
		{"none, but data for one", 0, write(8), ErrRange},
		{"a write of 9 bytes", 1, write(9), ErrRange},
		{"the last one too long", 2, pack(write(8), write(^uint32(0))), ErrRange},
		{"data for one more", 1, pack(write(8), write(8)), ErrSize},
		{"data for one less", 2, write(8), ErrSize},
		{"the last one cut", 2, pack(write(8), write(8)[:23]), ErrSize},
		{"a byte too many", 1, pack(write(8), "x"), ErrSize},
		{"as many as can be said", ^uint64(0), write(8), ErrSize},
		{"so many that their size overflows to what is there", 1<<61 + 1, write(8), ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m WriteMulti
			wantError(t, m.DecodeRequest(pack(tt.count, tt.writes)), CmdRegionWriteMulti, tt.kind)
			if m.Count != tt.count {
				t.Errorf("got %+v", m)
			}
		})
	}
	for n := range WriteMultiSize {
		wantError(t, new(WriteMulti).DecodeRequest(make([]byte, n)), CmdRegionWriteMulti, ErrShort)
		wantError(t, new(WriteMulti).DecodeReply(make([]byte, n)), CmdRegionWriteMulti, ErrShort)
	}
}

func TestWriteMultiWrites(t *testing.T) {
	b := pack(uint64(2),
		uint64(0x1000), uint32(0), uint32(4), []byte{1, 2, 3, 4, 9, 9, 9, 9},
		^uint64(0), ^uint32(0), uint32(8), "abcdefgh")
	var m WriteMulti
	wantError(t, m.DecodeRequest(append(b, make([]byte, SingleWriteSize)...)[:len(b)]), CmdRegionWriteMulti, nil)
	first, second := m.Write(0), m.Write(1)
	if want := (RegionAccess{0x1000, 0, 4, []byte{1, 2, 3, 4}}); !reflect.DeepEqual(first, want) {
		t.Errorf("first write %+v", first)
	}
	if want := (RegionAccess{^uint64(0), ^uint32(0), 8, []byte("abcdefgh")}); !reflect.DeepEqual(second, want) {
		t.Errorf("second write %+v", second)
	}
	if &first.Data[0] != &m.Writes[16] {
		t.Error("data was copied")
	}
	defer func() {
		if recover() == nil {
			t.Error("there is a third write")
		}
	}()
	m.Write(2)
}

func TestWriteMultiBytes(t *testing.T) {
	m := WriteMulti{Count: 2}
	m.Writes = AppendWrite(m.Writes, RegionAccess{0x1000, 1, 1, []byte{7}})
	m.Writes = AppendWrite(m.Writes, RegionAccess{0x1008, 1, 8, []byte("abcdefgh")})
	wantBytes(t, m.Append(nil), pack(uint64(2),
		uint64(0x1000), uint32(1), uint32(1), []byte{7, 0, 0, 0, 0, 0, 0, 0}, // what the write does not use is 0
		uint64(0x1008), uint32(1), uint32(8), "abcdefgh"))
	wantBytes(t, m.AppendHead(nil), pack(uint64(2)))
}

func TestWriteMultiReplyForgetsTheWrites(t *testing.T) {
	m := WriteMulti{Writes: make([]byte, SingleWriteSize)}
	wantError(t, m.DecodeReply(pack(uint64(1), "more")), CmdRegionWriteMulti, nil)
	if m.Count != 1 || m.Writes != nil {
		t.Errorf("got %+v", m)
	}
}
