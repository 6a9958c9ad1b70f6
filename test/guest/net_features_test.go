package guest

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
)

// Groups of features that go together in the combinations.
const (
	checksums = netspec.FeatureCSUM | netspec.FeatureGuestCSUM
	sent      = netspec.FeatureCSUM |
		netspec.FeatureHostTSO4 | netspec.FeatureHostTSO6 | netspec.FeatureHostECN | netspec.FeatureHostUSO
	received = netspec.FeatureGuestCSUM |
		netspec.FeatureGuestTSO4 | netspec.FeatureGuestTSO6 | netspec.FeatureGuestECN | netspec.FeatureGuestUSO4 | netspec.FeatureGuestUSO6
	described  = netspec.FeatureMAC | netspec.FeatureMTU | netspec.FeatureStatus
	controlled = described | netspec.FeatureCtrlVQ | netspec.FeatureCtrlRx | netspec.FeatureCtrlVLAN |
		netspec.FeatureCtrlMACAddr | netspec.FeatureGuestAnnounce | netspec.FeatureCtrlGuestOffloads
	severalPairs = controlled | netspec.FeatureMQ
)

// combination is a set of features that the guest's driver is to agree upon, beside VERSION_1.
type combination struct {
	name     string
	features uint64
}

// combinations are every ring layout with no offload, with checksums and with segments, each
// with one of the ways to control a card and to notify it, none at all first; and everything
// that the driver may agree upon, with IN_ORDER, which it does not know, and without.
func combinations() []combination {
	rings := []combination{{"packed", spec.FeatureRingPacked}, {"indirect", spec.FeatureIndirectDesc},
		{"event index", spec.FeatureEventIdx}, {"mergeable", netspec.FeatureMrgRxBuf}}
	segments := []combination{{"segments", sent | received}, {"sent segments", sent}, {"received segments", received}}
	controls := []combination{{}, {"control", controlled}, {"two pairs", severalPairs}}
	notices := []combination{{}, {"notification data", spec.FeatureNotificationData}, {"queue reset", spec.FeatureRingReset}}
	var list []combination
	add := func(parts ...combination) {
		var c combination
		for _, p := range parts {
			if c.features |= p.features; p.name != "" {
				c.name = strings.TrimPrefix(c.name+", "+p.name, ", ")
			}
		}
		c.name = cmp.Or(c.name, "nothing")
		list = append(list, c)
	}
	for choice := range 1 << len(rings) {
		var ring []combination
		for i := range rings {
			if choice>>i&1 != 0 {
				ring = append(ring, rings[i])
			}
		}
		for i, offload := range []combination{{}, {"checksums", checksums}, segments[choice/2%len(segments)]} {
			add(append(ring, offload, controls[(choice+i)%len(controls)], notices[(choice/3+i)%len(notices)])...)
		}
	}
	everything := combination{"everything", driven &^ (spec.FeatureRingPacked | netspec.FeatureSpeedDuplex)}
	inOrder := combination{"in order", spec.FeatureInOrder}
	add(everything)
	add(everything, rings[0])
	add(everything, inOrder)
	add(everything, rings[0], inOrder)
	return list
}

// driven are the features of our card that the guest's driver, that of Linux 6.12, knows.
const driven = sent | received | severalPairs | netspec.FeatureMrgRxBuf | netspec.FeatureSpeedDuplex |
	netspec.FeatureRSS | netspec.FeatureHashReport |
	spec.FeatureVersion1 | spec.FeatureIndirectDesc | spec.FeatureEventIdx | spec.FeatureRingPacked |
	spec.FeatureNotificationData | spec.FeatureRingReset | spec.FeatureAccessPlatform

// TestFeatureCombinations uses a card for each combination of features, all of one server.
func TestFeatureCombinations(t *testing.T) {
	const together = 16 // (all cards at once would take too much of the guest's memory)
	h := newHost(t)
	list := combinations()
	cards := make([]servedCard, len(list))
	for i, c := range list {
		cards[i] = servedCard{nic: newCard(i), options: []string{"--queues", "2", "--mtu", "1500", "--features", featureText(c.features)}}
		if c.features&netspec.FeatureMQ != 0 {
			cards[i].link = "tap:" + cards[i].tap() + ",queues=2"
		}
	}
	s := serveCards(t, h, cards...)
	before := s.holdings(t)
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2, Network: true})
	startEcho(t, g)
	for i := 0; i < len(cards); i += together {
		batch := cards[i:min(i+together, len(cards))]
		var up, unbind strings.Builder
		for _, c := range batch {
			up.WriteString(c.up(guestID))
			fmt.Fprintf(&unbind, "echo %s > /sys/bus/pci/drivers/virtio-pci/unbind\n", c.address())
		}
		run(t, g, up.String())
		for j, c := range batch {
			t.Run(list[i+j].name, func(t *testing.T) { checkCombination(t, g, h, c.nic, list[i+j].features) })
		}
		run(t, g, unbind.String())
	}
	checkNoBadChecksums(t, g, h)
	powerOff(t, g)
	s.checkReleased(t, before)
}

// featureText lists the features of a set as the vfu command does.
func featureText(set uint64) string {
	var names []string
	for bit := range 64 {
		switch f := uint64(1) << bit; {
		case set&f == 0:
		case f&spec.RingFeatures != 0:
			names = append(names, spec.FeatureNames(f))
		default:
			names = append(names, netspec.FeatureName(bit))
		}
	}
	return strings.ToLower(strings.Join(names, ","))
}

// features are the bits that device and driver have agreed upon.
func features(t *testing.T, g *Guest, c nic) uint64 {
	t.Helper()
	text := strings.TrimSpace(run(t, g, c.script("cat $pci/virtio*/features")))
	var bits uint64
	for i, bit := range text {
		if bit == '1' && i < 64 {
			bits |= 1 << i
		}
	}
	if len(text) < 64 {
		t.Fatalf("feature bits: %q", text)
	}
	return bits
}

// checkCombination uses a card that offers these features beside VERSION_1.
func checkCombination(t *testing.T, g *Guest, h *host, c nic, offered uint64) {
	t.Helper()
	want := (offered | spec.FeatureVersion1) & driven
	if got := features(t, g, c); got != want {
		t.Errorf("agreed upon %s; not so %s", featureText(got&^want), featureText(want&^got))
	}
	run(t, g, fmt.Sprintf("ping -c 1 -W 5 %s > /dev/null", c.in.v4(hostID)))
	checkEcho(t, h, c.in.v4(guestID), 2, 1<<20)
	checkEcho(t, h, c.in.v6(guestID), 1, 1<<20)
}
