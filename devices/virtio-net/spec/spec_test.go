package spec

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func TestConfigLayout(t *testing.T) {
	c := Config{[6]byte{1, 2, 3, 4, 5, 6}, 0x0708, 0x090a, 0x0b0c, 0x0d0e0f10, 0x11, 0x12, 0x1314, 0x15161718}
	b := make([]byte, ConfigSize)
	c.Put(b)
	want := []byte{1, 2, 3, 4, 5, 6, 8, 7, 10, 9, 12, 11, 16, 15, 14, 13, 0x11, 0x12, 0x14, 0x13, 0x18, 0x17, 0x16, 0x15}
	if !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	var back Config
	if back.Get(b); back != c {
		t.Errorf("read back %+v, want %+v", back, c)
	}
}

func TestHashReportLayout(t *testing.T) {
	h := HashReport{0x01020304, ReportUDPv6}
	b := bytes.Repeat([]byte{0xff}, 8)
	h.Put(b)
	if want := []byte{4, 3, 2, 1, 6, 0, 0, 0}; !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	var back HashReport
	if back.Get(b); back != h {
		t.Errorf("read back %+v", back)
	}
	for i := range 9 {
		if HashAll>>i&1 != 1 || Report(1<<i) != []uint16{ReportIPv4, ReportTCPv4, ReportUDPv4, ReportIPv6,
			ReportTCPv6, ReportUDPv6, ReportIPv6Ex, ReportTCPEx, ReportUDPEx}[i] {
			t.Errorf("bit %d", i)
		}
	}
}

func TestCoalesceLayout(t *testing.T) {
	c := CoalesceVQ{0x0102, Coalesce{0x03040506, 0x0708090a}}
	b := bytes.Repeat([]byte{0xff}, CoalesceVQSize)
	c.Put(b)
	if want := []byte{2, 1, 0, 0, 6, 5, 4, 3, 10, 9, 8, 7}; !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	b[2] = 0xff // reserved
	var back CoalesceVQ
	if back.Get(b); back != c {
		t.Errorf("read back %+v", back)
	}
}

func TestFeatureRequirements(t *testing.T) {
	for _, c := range []struct {
		name         string
		given, unmet uint64
	}{
		{"none", 0, 0},
		{"checksum and segments", FeatureGuestCSUM | FeatureGuestTSO4 | FeatureGuestECN, 0},
		{"segments without checksum", FeatureGuestTSO4, FeatureGuestTSO4},
		{"what needs what is missing", FeatureHostTSO6 | FeatureHostECN, FeatureHostTSO6 | FeatureHostECN},
		{"one of two", FeatureCSUM | FeatureHostTSO6 | FeatureHostECN, 0},
		{"ECN alone", FeatureCSUM | FeatureHostECN, FeatureHostECN},
		{"USO", FeatureHostUSO | FeatureGuestUSO4 | FeatureGuestUSO6, FeatureHostUSO | FeatureGuestUSO4 | FeatureGuestUSO6},
		{"without control queue", FeatureMQ | FeatureRSS | FeatureCtrlRx | FeatureCtrlVLAN | FeatureCtrlMACAddr | FeatureGuestAnnounce | FeatureMAC,
			FeatureMQ | FeatureRSS | FeatureCtrlRx | FeatureCtrlVLAN | FeatureCtrlMACAddr | FeatureGuestAnnounce},
		{"with control queue", FeatureCtrlVQ | FeatureMQ | FeatureRSS | FeatureNotfCoal | FeatureVQNotfCoal, 0},
		{"tunnels need a hash", FeatureCtrlVQ | FeatureHashTunnel, FeatureHashTunnel},
		{"either hash", FeatureCtrlVQ | FeatureHashTunnel | FeatureHashReport, 0},
	} {
		if got := Unmet(c.given); got != c.unmet {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.unmet)
		}
	}
}

func TestFeatureNames(t *testing.T) {
	for bit, want := range map[int]string{-1: "", 0: "CSUM", 4: "", 15: "MRG_RXBUF", 63: "SPEED_DUPLEX", 64: ""} {
		if got := FeatureName(bit); got != want {
			t.Errorf("bit %d is %q", bit, got)
		}
	}
	for _, r := range requirements {
		for bit := range 64 {
			if r.feature == 1<<bit && FeatureName(bit) == "" {
				t.Errorf("bit %d has no name", bit)
			}
		}
	}
}

func TestQueueIndexes(t *testing.T) {
	if ReceiveQueue(3) != 6 || TransmitQueue(3) != 7 {
		t.Error(ReceiveQueue(3), TransmitQueue(3))
	}
	for features, want := range map[uint64]int{FeatureCtrlVQ: 2, FeatureCtrlVQ | FeatureMQ: 16, FeatureCtrlVQ | FeatureRSS: 16} {
		if got := ControlQueue(features, 8); got != want {
			t.Errorf("%#x: %d, want %d", features, got, want)
		}
	}
}

// message is what Append and Parse have in common.
type message interface {
	Append([]byte) []byte
	Parse([]byte) error
}

func TestMessages(t *testing.T) {
	for _, c := range []struct {
		name   string
		value  message
		wire   []byte
		padded bool // more bytes may follow
	}{
		{"no addresses", &MACTable{[][6]byte{}, [][6]byte{}}, make([]byte, 8), false},
		{"addresses", &MACTable{[][6]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}, [][6]byte{{3, 0, 0, 0, 0, 3}}},
			[]byte{2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 3, 0, 0, 0, 0, 3}, false},
		{"RSS", &RSSConfig{HashIPv4 | HashUDPEx, 0x0708, []uint16{1, 2, 0x0304, 5}, 6, []byte{9, 8, 7}},
			[]byte{1, 1, 0, 0, 3, 0, 8, 7, 1, 0, 2, 0, 4, 3, 5, 0, 6, 0, 3, 9, 8, 7}, true},
		{"hash", &HashConfig{HashIPv6, []byte{9, 8, 7}}, []byte{8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 9, 8, 7}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.value.Append(nil); !bytes.Equal(got, c.wire) {
				t.Errorf("% x, want % x", got, c.wire)
			}
			back := reflect.New(reflect.TypeOf(c.value).Elem()).Interface().(message)
			if err := back.Parse(c.wire); err != nil || !reflect.DeepEqual(back, c.value) {
				t.Errorf("read back %+v, %v", back, err)
			}
			for n := range c.wire {
				if err := back.Parse(c.wire[:n]); !errors.Is(err, ErrCommand) {
					t.Errorf("cut to %d bytes: %v", n, err)
				}
			}
			err := back.Parse(append(bytes.Clone(c.wire), 0))
			if c.padded && (err != nil || !reflect.DeepEqual(back, c.value)) || !c.padded && !errors.Is(err, ErrCommand) {
				t.Errorf("a byte more: %+v, %v", back, err)
			}
		})
	}
}

func TestHostileCounts(t *testing.T) {
	for _, c := range []struct {
		name string
		into message
		wire []byte
	}{
		{"more addresses than bytes", &MACTable{}, []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}},
		{"the second table, too", &MACTable{}, []byte{0, 0, 0, 0, 0xab, 0xaa, 0xaa, 0x2a}},
		{"three entries", &RSSConfig{}, append([]byte{1, 0, 0, 0, 2, 0, 0, 0}, make([]byte, 9)...)},
		{"65,536 entries", &RSSConfig{}, append([]byte{1, 0, 0, 0, 0xff, 0xff, 0, 0}, make([]byte, 9)...)},
	} {
		if err := c.into.Parse(c.wire); !errors.Is(err, ErrCommand) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
