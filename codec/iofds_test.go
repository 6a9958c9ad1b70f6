package codec

import (
	"reflect"
	"testing"
)

func ioFDsHead(argsz, count uint32) []byte { return pack(argsz, uint32(0), uint32(2), count) }

func TestIOFDsRequest(t *testing.T) {
	for _, tt := range []struct {
		name                string
		argsz, flags, count uint32
		kind                error
	}{
		{"first: how much is there", 16, 0, 0, nil},
		{"second: with room", 96, 0, 0, nil},
		{"argsz smaller than the structure", 15, 0, 0, ErrSize},
		{"flags", 16, 1, 0, ErrFlags},
		{"count", 16, 0, 1, ErrRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := IOFDs{Regions: []IOFD{{Offset: 1}}}
			err := m.DecodeRequest(pack(tt.argsz, tt.flags, uint32(2), tt.count, "more"))
			wantError(t, err, CmdGetRegionIOFDs, tt.kind)
			if m.ArgSz != tt.argsz || m.Flags != tt.flags || m.Index != 2 || m.Count != tt.count || len(m.Regions) != 0 {
				t.Errorf("got %+v", m)
			}
		})
	}
	m := IOFDs{ArgSz: 96, Index: 2}
	wantBytes(t, m.AppendRequest(nil), pack(uint32(96), uint32(0), uint32(2), uint32(0)))
}

// The sub-regions of the tests, once as structures and once as bytes: as the
// specification has them, as libvfio-user has them, and what neither has yet.
var (
	eventfd  = IOFD{Offset: 0x1000, Size: 4, FDIndex: 1, Type: IOEventfd, Flags: IOEventfdDatamatch, Data: 7}
	regionfd = IOFD{Offset: 0x2000, Size: 8, FDIndex: 2, Type: IORegionfd, Flags: IORegionPIO, Data: 0xabcd}
	shadowed = IOFD{Offset: 0x3000, Size: 4, FDIndex: 1, Type: IOEventfdShadow, Data: 9, ShadowFDIndex: 3, ShadowOffset: 0x40}

	eventfd40  = pack(uint64(0x1000), uint64(4), uint32(1), uint32(0), uint32(1), uint32(0), uint64(7))
	regionfd40 = pack(uint64(0x2000), uint64(8), uint32(2), uint32(1), uint32(1), uint32(0), uint64(0xabcd))
	eventfd48  = pack(uint64(0x1000), uint64(4), uint32(1), uint32(0), uint32(1), uint32(0), uint64(0), uint64(7))
	regionfd48 = pack(uint64(0x2000), uint64(8), uint32(2), uint32(1), uint32(1), uint32(0), uint64(0xabcd), uint64(0))
	shadowed48 = pack(uint64(0x3000), uint64(4), uint32(1), uint32(2), uint32(0), uint32(3), uint64(0x40), uint64(9))
	eventfd56  = pack(eventfd40, "what is to come.")
)

func TestIOFDsReply(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reply []byte
		want  []IOFD
		kind  error
	}{
		{"none", ioFDsHead(16, 0), nil, nil},
		{"one eventfd", pack(ioFDsHead(56, 1), eventfd40), []IOFD{eventfd}, nil},
		{"both types", pack(ioFDsHead(96, 2), eventfd40, regionfd40), []IOFD{eventfd, regionfd}, nil},
		{"libvfio-user's size, all types", pack(ioFDsHead(160, 3), eventfd48, regionfd48, shadowed48), []IOFD{eventfd, regionfd, shadowed}, nil},
		{"libvfio-user's size, no shadow", pack(ioFDsHead(64, 1), eventfd48), []IOFD{eventfd}, nil},
		{"larger than any that is known", pack(ioFDsHead(128, 2), eventfd56, eventfd56), []IOFD{eventfd, eventfd}, nil},
		{"payload longer than argsz", pack(ioFDsHead(56, 1), eventfd40, "more"), []IOFD{eventfd}, nil},
		{"cut: ask again", ioFDsHead(96, 2), nil, nil},
		{"cut in the middle: ask again", pack(ioFDsHead(96, 2), eventfd40), nil, nil},
		{"argsz smaller than the structure", ioFDsHead(15, 0), nil, ErrSize},
		{"argsz has no room for the count", pack(ioFDsHead(56, 2), eventfd40), nil, ErrSize},
		{"argsz without sub-regions", ioFDsHead(16, 1), nil, ErrSize},
		{"not a multiple", pack(ioFDsHead(97, 2), eventfd40, regionfd40, "x"), nil, ErrSize},
		{"smaller than the specification's", pack(ioFDsHead(55, 1), eventfd40), nil, ErrSize},
		{"as many as can be said", pack(ioFDsHead(56, ^uint32(0)), eventfd40), nil, ErrSize},
		{"a shadow in 40 bytes", pack(ioFDsHead(56, 1), shadowed48[:40]), nil, ErrSize},
		{"a shadow in 56 bytes", pack(ioFDsHead(72, 1), shadowed48, uint64(0)), nil, ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := IOFDs{Regions: []IOFD{{Offset: 9}}}
			err := m.DecodeReply(tt.reply)
			wantError(t, err, CmdGetRegionIOFDs, tt.kind)
			if err == nil && (len(m.Regions) != len(tt.want) || len(tt.want) > 0 && !reflect.DeepEqual(m.Regions, tt.want)) {
				t.Errorf("got %+v, want %+v", m.Regions, tt.want)
			}
		})
	}
	for n := range IOFDsSize {
		wantError(t, new(IOFDs).DecodeReply(make([]byte, n)), CmdGetRegionIOFDs, ErrShort)
		wantError(t, new(IOFDs).DecodeRequest(make([]byte, n)), CmdGetRegionIOFDs, ErrShort)
	}
}

func TestIOFDsReplyBytes(t *testing.T) {
	padded := eventfd
	padded.ShadowFDIndex, padded.ShadowOffset = 5, 6 // mean nothing without a shadow
	for _, tt := range []struct {
		name    string
		regions []IOFD
		argsz   uint32
		want    []byte
	}{
		{"none", nil, 16, ioFDsHead(16, 0)},
		{"40 bytes without a shadow", []IOFD{eventfd, regionfd}, 96, pack(ioFDsHead(96, 2), eventfd40, regionfd40)},
		{"48 bytes with one", []IOFD{eventfd, regionfd, shadowed}, 160, pack(ioFDsHead(160, 3), eventfd48, regionfd48, shadowed48)},
		{"a shadow's fields are another's padding", []IOFD{padded}, 56, pack(ioFDsHead(56, 1), eventfd40)},
		{"a shadow's fields are another's padding, 48 bytes", []IOFD{padded, shadowed}, 112, pack(ioFDsHead(112, 2), eventfd48, shadowed48)},
		{"no room", []IOFD{eventfd, regionfd}, 95, ioFDsHead(96, 2)},
		{"no room at all", []IOFD{shadowed}, 16, ioFDsHead(64, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := IOFDs{ArgSz: 1, Index: 2, Count: 99, Regions: tt.regions}
			b := m.AppendReply(nil, tt.argsz)
			wantBytes(t, b, tt.want)
			var again IOFDs
			wantError(t, again.DecodeReply(b), CmdGetRegionIOFDs, nil)
			if again.Truncated(len(b)) != (m.ArgSz > tt.argsz) {
				t.Errorf("%d bytes of %d: truncated %v", len(b), m.ArgSz, again.Truncated(len(b)))
			}
		})
	}
}

func TestIOFDsReplyReusesItsRoom(t *testing.T) {
	room := make([]IOFD, 0, 2)
	m := IOFDs{Regions: room}
	wantError(t, m.DecodeReply(pack(ioFDsHead(96, 2), eventfd40, regionfd40)), CmdGetRegionIOFDs, nil)
	if &m.Regions[0] != &room[:1][0] {
		t.Error("the list was moved")
	}
}
