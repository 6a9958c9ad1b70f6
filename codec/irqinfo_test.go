package codec

import "testing"

func TestIRQInfo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		argsz uint32
		kind  error
	}{
		{"exact", 16, nil},
		{"room for more", 1024, nil},
		{"argsz smaller than the structure", 15, ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m IRQInfo
			flags := IRQInfoEventfd | IRQInfoMaskable | IRQInfoAutomasked | IRQInfoNoResize
			err := m.Decode(pack(tt.argsz, uint32(flags), uint32(2), uint32(65), "more"))
			wantError(t, err, CmdGetIRQInfo, tt.kind)
			if want := (IRQInfo{tt.argsz, 0xf, 2, 65}); m != want {
				t.Errorf("got %+v, want %+v", m, want)
			}
		})
	}
}
