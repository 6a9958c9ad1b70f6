package codec

import "encoding/binary"

// FeatureSize is the size in bytes of what precedes the data of DEVICE_FEATURE.
const FeatureSize = 8

// FeatureFlags hold the number of a feature and what is to be done with it
// (VFIO_DEVICE_FEATURE_*).
type FeatureFlags uint32

const (
	FeatureMask  FeatureFlags = 0xffff // the number
	FeatureGet   FeatureFlags = 1 << 16
	FeatureSet   FeatureFlags = 1 << 17
	FeatureProbe FeatureFlags = 1 << 18 // whether the feature, with GET and SET as given, is there

	// FeatureOps are the bits that say what is to be done.
	FeatureOps = FeatureGet | FeatureSet | FeatureProbe
)

// The features that the protocol has (specification, "Device Features").
const (
	FeatureMigration        FeatureFlags = 1
	FeatureMigDeviceState   FeatureFlags = 2
	FeatureDMALoggingStart  FeatureFlags = 6
	FeatureDMALoggingStop   FeatureFlags = 7
	FeatureDMALoggingReport FeatureFlags = 8
)

// Feature is the payload of DEVICE_FEATURE, both ways. Data is the feature's own.
type Feature struct {
	ArgSz uint32 // request: room for the reply; reply: its size; bytes
	Flags FeatureFlags
	Data  []byte
}

// Decode reads a request or a reply; Data aliases b.
func (m *Feature) Decode(b []byte) error {
	if len(b) < FeatureSize {
		return invalid(CmdDeviceFeature, ErrShort, "payload needs 8 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = FeatureFlags(binary.NativeEndian.Uint32(b[4:]))
	m.Data = b[FeatureSize:]
	if m.ArgSz < FeatureSize {
		return invalid(CmdDeviceFeature, ErrSize, "argsz is smaller than 8")
	}
	switch ops := m.Flags &^ FeatureMask; {
	case ops&^FeatureOps != 0:
		return invalid(CmdDeviceFeature, ErrFlags, "unknown flag")
	case ops == 0:
		return invalid(CmdDeviceFeature, ErrFlags, "none of GET, SET, PROBE")
	case ops == FeatureGet|FeatureSet:
		return invalid(CmdDeviceFeature, ErrFlags, "GET and SET go together with PROBE only")
	case ops != FeatureGet && uint64(m.ArgSz) < uint64(len(b)):
		return invalid(CmdDeviceFeature, ErrSize, "argsz leaves no room for the reply, which repeats the request")
	}
	return nil
}

// Number is the feature without what is to be done with it.
func (f FeatureFlags) Number() FeatureFlags { return f & FeatureMask }

// AppendHead appends what precedes the data.
func (m *Feature) AppendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	return binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
}

// Append appends the message with its data.
func (m *Feature) Append(dst []byte) []byte { return append(m.AppendHead(dst), m.Data...) }
