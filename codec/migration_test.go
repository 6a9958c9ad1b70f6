package codec

import "testing"

func TestMigrationFlags(t *testing.T) {
	f := MigrationP2P
	wantError(t, f.Decode(pack(uint64(5), "more")), CmdDeviceFeature, nil)
	if f != MigrationStopCopy|MigrationPreCopy {
		t.Errorf("got %#x", uint64(f))
	}
	wantBytes(t, f.Append(nil), pack(uint64(5)))
	wantError(t, f.Decode(pack(^uint64(0))), CmdDeviceFeature, nil) // more may come to be defined
	if f != ^MigrationFlags(0) {
		t.Errorf("got %#x", uint64(f))
	}
	for n := range 8 {
		wantError(t, f.Decode(make([]byte, n)), CmdDeviceFeature, ErrShort)
	}
}

func TestMigrationStates(t *testing.T) {
	for _, tt := range []struct {
		state MigState
		wire  uint32
		name  string
		kind  error
	}{
		{MigError, 0, "ERROR", nil},
		{MigStop, 1, "STOP", nil},
		{MigRunning, 2, "RUNNING", nil},
		{MigStopCopy, 3, "STOP_COPY", nil},
		{MigResuming, 4, "RESUMING", nil},
		{MigRunningP2P, 5, "RUNNING_P2P", nil},
		{MigPreCopy, 6, "PRE_COPY", nil},
		{MigPreCopyP2P, 7, "PRE_COPY_P2P", nil},
		{8, 8, "state 8", ErrRange},
		{^MigState(0), ^uint32(0), "state 4294967295", ErrRange},
	} {
		var s MigState
		// The descriptor in it is not used: libvfio-user's client leaves -1 there.
		wantError(t, s.Decode(pack(tt.wire, ^uint32(0), "more")), CmdDeviceFeature, tt.kind)
		if s != tt.state || s.String() != tt.name {
			t.Errorf("%d reads as %v, want %s", tt.wire, s, tt.name)
		}
		wantBytes(t, tt.state.Append(nil), pack(tt.wire, uint32(0)))
	}
	for n := range 8 {
		wantError(t, new(MigState).Decode(make([]byte, n)), CmdDeviceFeature, ErrShort)
	}
}
