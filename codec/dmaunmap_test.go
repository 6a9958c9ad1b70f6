package codec

import (
	"reflect"
	"testing"
)

func TestDMAUnmapRequest(t *testing.T) {
	for _, tt := range []struct {
		name       string
		argsz      uint32
		flags      UnmapFlags
		addr, size uint64
		bitmap     []byte
		kind       error
	}{
		{"exact", 24, 0, 0x1000, 0x2000, nil, nil},
		{"room for more", 4096, 0, 0x1000, 0x2000, nil, nil},
		{"argsz smaller than the structure", 23, 0, 0x1000, 0x2000, nil, ErrSize},
		{"all", 24, UnmapFlagAll, 0, 0, nil, nil},
		{"all with an address", 24, UnmapFlagAll, 1, 0, nil, ErrRange},
		{"all with a size", 24, UnmapFlagAll, 0, 1, nil, ErrRange},
		{"unknown flag", 24, 4, 0, 0, nil, ErrFlags},
		{"all with a bitmap", 48, UnmapFlagAll | UnmapFlagGetDirtyBitmap, 0, 0, pack(uint64(4096), uint64(8)), ErrFlags},
		{"bitmap", 48, UnmapFlagGetDirtyBitmap, 0, 0x8000, pack(uint64(4096), uint64(8)), nil},
		{"bitmap without its structure", 48, UnmapFlagGetDirtyBitmap, 0, 0x8000, pack(uint64(4096)), ErrShort},
		{"argsz without room for the bitmap's structure", 39, UnmapFlagGetDirtyBitmap, 0, 0x8000, pack(uint64(4096), uint64(0)), ErrSize},
		{"argsz without room for the bits", 47, UnmapFlagGetDirtyBitmap, 0, 0x8000, pack(uint64(4096), uint64(8)), ErrSize},
		{"bitmap as large as can be said", ^uint32(0), UnmapFlagGetDirtyBitmap, 0, 0x8000, pack(uint64(4096), ^uint64(0)), ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m DMAUnmap
			err := m.DecodeRequest(pack(tt.argsz, uint32(tt.flags), tt.addr, tt.size, tt.bitmap))
			wantError(t, err, CmdDMAUnmap, tt.kind)
			if m.ArgSz != tt.argsz || m.Flags != tt.flags || m.Addr != tt.addr || m.Size != tt.size {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// The reply echoes 24 bytes; cloud-hypervisor reads exactly these.
func TestDMAUnmapReplyEchoes(t *testing.T) {
	request := pack(uint32(24), uint32(0), uint64(0x1000), uint64(0x2000))
	var m DMAUnmap
	wantError(t, m.DecodeRequest(pack(request, "more")), CmdDMAUnmap, nil)
	wantBytes(t, m.Append(nil), request)
}

func TestDMAUnmapReplyWithBitmap(t *testing.T) {
	head := pack(uint32(48), uint32(1), uint64(0), uint64(0x8000), uint64(4096), uint64(8))
	bits := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	var m DMAUnmap
	wantError(t, m.DecodeReply(pack(head, bits)), CmdDMAUnmap, nil)
	if want := (Bitmap{PgSize: 4096, Size: 8, Data: bits}); !reflect.DeepEqual(m.Bitmap, want) {
		t.Errorf("got %+v", m.Bitmap)
	}
	wantError(t, m.DecodeReply(pack(head, bits[:7])), CmdDMAUnmap, ErrSize)
	wantError(t, m.DecodeReply(pack(head, bits, uint8(9))), CmdDMAUnmap, ErrSize)
	wantError(t, m.DecodeReply(pack(uint32(24), uint32(0), uint64(0), uint64(0))), CmdDMAUnmap, nil)
	if m.Bitmap.Data != nil {
		t.Error("a message that is used again keeps the old bitmap")
	}
}
