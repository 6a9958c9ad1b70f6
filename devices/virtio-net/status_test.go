package virtionet

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	virtio "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// config reads the device configuration.
func (g *guest) config() (c spec.Config) {
	g.t.Helper()
	var b [spec.ConfigSize]byte
	must(g.t, g.d.ReadConfig(testContext(g.t), 0, b[:]))
	c.Get(b[:])
	return c
}

func TestConfigurationThatTheDriverSees(t *testing.T) {
	r := newRig(t, Config{Pairs: 3, MTU: 9000, Speed: 25000, MAC: net.HardwareAddr{2, 3, 4, 5, 6, 7}})
	g := r.attach(options{features: all})
	want := spec.Config{MAC: [6]byte{2, 3, 4, 5, 6, 7}, Status: spec.StatusLinkUp, Pairs: 3, MTU: 9000, Speed: 25000,
		Duplex: spec.DuplexFull, KeySize: 40, TableSize: 128, HashTypes: spec.HashAll}
	if got := g.config(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	must(t, g.d.WriteConfig(testContext(t), 0, []byte{9, 9, 9, 9, 9, 9}))
	if got := g.config(); got != want {
		t.Errorf("after a write: %+v", got)
	}
}

func TestStatusOfTheLink(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, Config{})
	changed := make(chan struct{}, 16)
	g := r.attach(options{features: all, config: func(*driver.Device) { changed <- struct{}{} }})
	g.ok(spec.ClassRx, spec.RxPromisc, []byte{1}) // the card has started
	card := r.link.Card()
	expect := func(status uint16) {
		t.Helper()
		<-changed
		if got := g.config().Status; got != status {
			t.Errorf("status %d, want %d", got, status)
		}
	}
	card.SetCarrier(false)
	expect(0)
	card.SetCarrier(false) // no change
	card.SetCarrier(true)
	expect(spec.StatusLinkUp)
	card.Announce()
	expect(spec.StatusLinkUp | spec.StatusAnnounce)
	g.ok(spec.ClassAnnounce, spec.AnnounceAck, nil)
	if got := g.config().Status; got != spec.StatusLinkUp {
		t.Errorf("after the acknowledgement: %d", got)
	}
	// It survives a driver; what is asked of a driver does not.
	card.Announce()
	expect(spec.StatusLinkUp | spec.StatusAnnounce)
	card.SetCarrier(false)
	expect(spec.StatusAnnounce)
	g.d.Close()
	g.pairs = nil
	g.o.features = virtio.FeatureVersion1 | spec.FeatureStatus
	g.open(1)
	g.pairs[0].send(vnet.Header{}, frameOf(1, 60))
	card.Announce() // not negotiated
	if got := g.config().Status; got != 0 {
		t.Errorf("the next driver finds %d", got)
	}
}

func TestAddressSetByTheDriver(t *testing.T) {
	r := newRig(t, Config{})
	g := r.attach(options{features: all})
	own := mac(77)
	g.ok(spec.ClassMAC, spec.MACAddrSet, own[:])
	if got := g.config().MAC; got != own {
		t.Errorf("%x", got)
	}
	g.d.Close()
	g.pairs = nil
	g.open(1)
	if got := g.config().MAC; got != mac(1) || !bytes.Equal(r.card.MAC(), got[:]) {
		t.Errorf("the next driver finds %x", got)
	}
}

func TestFeaturesThatGoTogether(t *testing.T) {
	for _, c := range []struct {
		name   string
		accept uint64
		fits   bool
	}{
		{"none", 0, true},
		{"all", all, true},
		{"segments without checksum", spec.FeatureGuestTSO4, false},
		{"queue pairs without control queue", spec.FeatureMQ, false},
	} {
		r := newRig(t, Config{Pairs: 2})
		g := r.attach(options{})
		g.d.Close()
		d, err := driver.Open(testContext(t), g.dev, g.mem, driver.Options{})
		must(t, err)
		if err := d.Negotiate(testContext(t), d.Offered()&c.accept|virtio.FeatureVersion1); (err == nil) != c.fits {
			t.Errorf("%s: %v", c.name, err)
		}
		d.Close()
	}
}

func TestOfferedFeatures(t *testing.T) {
	for _, c := range []struct {
		name      string
		cfg       Config
		with, not uint64
	}{
		{"one pair", Config{}, spec.FeatureMrgRxBuf | spec.FeatureCtrlVQ | virtio.FeatureRingPacked,
			spec.FeatureMQ | spec.FeatureRSS | spec.FeatureMTU | spec.FeatureStandby | spec.FeatureHostUFO},
		{"two pairs and MTU", Config{Pairs: 2, MTU: 1500}, spec.FeatureMQ | spec.FeatureRSS | spec.FeatureMTU, 0},
		{"nothing but the version", Config{Pairs: 2, MTU: 1500, Without: all}, virtio.FeatureVersion1, ^uint64(virtio.FeatureVersion1)},
		{"no checksums", Config{Without: spec.FeatureCSUM}, spec.FeatureGuestTSO4, spec.FeatureCSUM | spec.FeatureHostTSO4 | spec.FeatureHostECN | spec.FeatureHostUSO},
		{"no control queue", Config{Pairs: 2, Without: spec.FeatureCtrlVQ}, spec.FeatureMAC,
			spec.FeatureMQ | spec.FeatureRSS | spec.FeatureHashReport | spec.FeatureCtrlRxExtra | spec.FeatureCtrlGuestOffloads | spec.FeatureGuestAnnounce},
		{"no receive modes", Config{Without: spec.FeatureCtrlRx}, spec.FeatureCtrlVLAN, spec.FeatureCtrlRxExtra},
	} {
		must(t, func() error { c.cfg.Link = &linktest.Link{}; return c.cfg.complete() }())
		got := c.cfg.offered()
		if got&c.with != c.with || got&c.not != 0 {
			t.Errorf("%s: %#x", c.name, got)
		}
	}
}

func TestConfigThatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		says string
	}{
		{"no link", Config{}, "link"},
		{"pairs", Config{Link: link.Null(), Pairs: 65}, "65 queue pairs"},
		{"negative pairs", Config{Link: link.Null(), Pairs: -1}, "-1"},
		{"MTU", Config{Link: link.Null(), MTU: 67}, "67"},
		{"large MTU", Config{Link: link.Null(), MTU: 65536}, "65536"},
		{"queue size", Config{Link: link.Null(), QueueSize: 100}, "100"},
		{"small queue", Config{Link: link.Null(), QueueSize: 32}, "32"},
		{"group", Config{Link: link.Null(), MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}}, "group"},
		{"zero", Config{Link: link.Null(), MAC: make(net.HardwareAddr, 6)}, "zero"},
		{"long address", Config{Link: link.Null(), MAC: make(net.HardwareAddr, 8)}, "8 bytes"},
		{"speed", Config{Link: link.Null(), Speed: 1 << 31}, "2147483648"},
	} {
		card, err := New(c.cfg)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", c.name, card, err)
		}
	}
	l := link.Null()
	card, err := New(Config{Link: l})
	must(t, err)
	if _, err := New(Config{Link: l}); !errors.Is(err, link.ErrBusy) {
		t.Errorf("a second card on the link: %v", err)
	}
	if m := card.MAC(); m[0]&3 != 2 {
		t.Errorf("a random address of %v", m)
	}
	must(t, card.Close())
	must(t, card.Close())
}
