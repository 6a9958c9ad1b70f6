package codec

import "testing"

func TestDeviceInfo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		argsz uint32
		kind  error
	}{
		{"exact", 16, nil},
		{"cloud-hypervisor leaves room for the header", 32, nil},
		{"argsz smaller than the structure", 15, ErrSize},
		{"argsz 0", 0, ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m DeviceInfo
			err := m.Decode(pack(tt.argsz, uint32(DeviceFlagReset|DeviceFlagPCI), uint32(9), uint32(5), "more"))
			wantError(t, err, CmdGetInfo, tt.kind)
			if want := (DeviceInfo{tt.argsz, 3, 9, 5}); m != want {
				t.Errorf("got %+v, want %+v", m, want)
			}
		})
	}
}
