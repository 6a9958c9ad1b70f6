package codec

import "testing"

func TestDMAMap(t *testing.T) {
	for _, tt := range []struct {
		name  string
		argsz uint32
		flags DMAFlags
		kind  error
	}{
		{"read and write", 32, DMAFlagRead | DMAFlagWrite, nil},
		{"read only", 32, DMAFlagRead, nil},
		{"no access is for the table to refuse", 32, 0, nil},
		{"mapped", 32, DMAFlagRead | DMAFlagMmap, nil},
		{"file I/O", 32, DMAFlagRead | DMAFlagFileIO, nil},
		{"mapped and file I/O", 32, DMAFlagMmap | DMAFlagFileIO, ErrFlags},
		{"unknown flag", 32, 1 << 4, ErrFlags},
		{"argsz larger than the structure", 64, DMAFlagRead, nil},
		{"argsz smaller than the structure", 31, DMAFlagRead, ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m DMAMap
			b := pack(tt.argsz, uint32(tt.flags), uint64(0x1000), uint64(0x200000200000), uint64(0x200000))
			err := m.Decode(b)
			wantError(t, err, CmdDMAMap, tt.kind)
			if want := (DMAMap{tt.argsz, tt.flags, 0x1000, 0x200000200000, 0x200000}); m != want {
				t.Errorf("got %+v, want %+v", m, want)
			}
			wantError(t, m.Decode(pack(b, uint32(0))), CmdDMAMap, tt.kind) // longer is as good
		})
	}
}
