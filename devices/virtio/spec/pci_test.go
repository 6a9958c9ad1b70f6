package spec

import (
	"testing"
)

func TestCapabilitiesComeBackAsTheyWere(t *testing.T) {
	for _, want := range []Capability{
		{Type: CapCommon, BAR: 4, Offset: 0x1000, Size: CommonSize},
		{Type: CapNotify, BAR: 2, Offset: 0x3000, Size: 0x1000, Multiplier: 4},
		{Type: CapPCI},
		{Type: CapSharedMemory, ID: 7, BAR: 5, Offset: 0xfffff000, Size: 0xffffffff},
	} {
		b := append([]byte{0x09, 0}, want.Data()...)
		var got Capability
		if !got.Get(b) || got != want {
			t.Errorf("%+v came back as %+v", want, got)
		}
		if int(b[CapOffsetLength]) != len(b) {
			t.Errorf("%+v: length %d of %d bytes", want, b[CapOffsetLength], len(b))
		}
		if got.Get(b[:len(b)-1]) {
			t.Errorf("%+v: taken without its last byte", want)
		}
		if b[CapOffsetLength]--; got.Get(b) {
			t.Errorf("%+v: taken with a length of %d", want, b[CapOffsetLength])
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Status(0).String(), "RESET"},
		{(StatusAcknowledge | StatusDriver | StatusFeaturesOK | StatusDriverOK).String(), "ACKNOWLEDGE|DRIVER|DRIVER_OK|FEATURES_OK"},
		{(StatusNeedsReset | StatusFailed | 0x10).String(), "bit 4|DEVICE_NEEDS_RESET|FAILED"},
		{FeatureNames(0), ""},
		{FeatureNames(1<<5 | FeatureEventIdx | FeatureVersion1 | 1<<63), "bit 5 EVENT_IDX VERSION_1 bit 63"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestNotification(t *testing.T) {
	if v := Notification(3, 0x8001); v != 0x80010003 {
		t.Errorf("%#x", v)
	}
}
