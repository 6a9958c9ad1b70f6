package codec

import (
	"bytes"
	"testing"
)

func TestFeature(t *testing.T) {
	const get, set, probe = FeatureGet, FeatureSet, FeatureProbe
	state := pack(uint32(MigStop), uint32(0))
	for _, tt := range []struct {
		name  string
		argsz uint32
		flags FeatureFlags
		data  []byte
		kind  error
	}{
		{"get", 16, get | FeatureMigration, nil, nil},
		{"get with data in the request", 64, get | FeatureDMALoggingReport, make([]byte, 24), nil},
		{"get, argsz without room for any data", 8, get | FeatureMigration, nil, nil},
		{"get, the reply", 16, get | FeatureMigDeviceState, state, nil},
		{"get, a reply whose argsz does not count the data", 8, get | FeatureMigDeviceState, state, nil},
		{"set", 16, set | FeatureMigDeviceState, state, nil},
		{"set without data", 8, set | FeatureDMALoggingStop, nil, nil},
		{"set with room for more", 4096, set | FeatureMigDeviceState, state, nil},
		{"probe", 8, probe | FeatureMigration, nil, nil},
		{"probe for get", 8, probe | get | FeatureMigration, nil, nil},
		{"probe for set", 8, probe | set | FeatureMigDeviceState, nil, nil},
		{"probe for both", 8, probe | get | set | FeatureMigDeviceState, nil, nil},
		{"probe with data that means nothing", 16, probe | FeatureMigration, state, nil},
		{"a feature that nobody has", 8, probe | FeatureMask, nil, nil},
		{"feature 0", 8, probe, nil, nil},
		{"argsz smaller than the structure", 7, get | FeatureMigration, nil, ErrSize},
		{"argsz 0", 0, get | FeatureMigration, nil, ErrSize},
		{"set, argsz smaller than the request", 15, set | FeatureMigDeviceState, state, ErrSize},
		{"probe, argsz smaller than the request", 15, probe | FeatureMigration, state, ErrSize},
		{"nothing to do", 16, FeatureMigration, nil, ErrFlags},
		{"get and set", 16, get | set | FeatureMigDeviceState, state, ErrFlags},
		{"the lowest unknown flag", 16, get | 1<<19 | FeatureMigration, nil, ErrFlags},
		{"the highest unknown flag", 16, get | 1<<31 | FeatureMigration, nil, ErrFlags},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := pack(tt.argsz, uint32(tt.flags), tt.data)
			m := Feature{Data: []byte("left from before")}
			err := m.Decode(b)
			wantError(t, err, CmdDeviceFeature, tt.kind)
			if m.ArgSz != tt.argsz || m.Flags != tt.flags || m.Flags.Number() != tt.flags&0xffff || !bytes.Equal(m.Data, tt.data) {
				t.Errorf("got %+v", m)
			}
			if err == nil {
				wantBytes(t, m.Append(nil), b)
			}
		})
	}
	for n := range FeatureSize {
		wantError(t, new(Feature).Decode(make([]byte, n)), CmdDeviceFeature, ErrShort)
	}
}

func TestFeatureDataAliasesThePayload(t *testing.T) {
	b := pack(uint32(16), uint32(FeatureSet|FeatureMigDeviceState), uint64(1))
	var m Feature
	wantError(t, m.Decode(b), CmdDeviceFeature, nil)
	if &m.Data[0] != &b[FeatureSize] {
		t.Error("data was copied")
	}
}

func TestFeatureHeadPrecedesTheData(t *testing.T) {
	m := Feature{ArgSz: 16, Flags: FeatureGet | FeatureMigration, Data: []byte("data")}
	wantBytes(t, m.AppendHead(nil), pack(uint32(16), uint32(0x10001)))
}
