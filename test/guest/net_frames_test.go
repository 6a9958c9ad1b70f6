package guest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"vfiouser/test/netns"
)

const (
	etherTypeARP   = 0x0806
	etherTypeVLAN  = 0x8100
	etherTypeTests = 0x88b5 // for local experiments
)

// hostMAC is the source of frames that a test makes itself.
var hostMAC = net.HardwareAddr{2, 0, 0, 0, 0xff, 1}

// frame makes an Ethernet frame of at least 60 bytes; vlan 0: without a tag.
func frame(t *testing.T, to string, vlan, etherType uint16, payload []byte) []byte {
	t.Helper()
	address, err := net.ParseMAC(to)
	if err != nil {
		t.Fatal(err)
	}
	f := slices.Concat(address, hostMAC)
	if vlan != 0 {
		f = binary.BigEndian.AppendUint16(f, etherTypeVLAN)
		f = binary.BigEndian.AppendUint16(f, vlan)
	}
	f = binary.BigEndian.AppendUint16(f, etherType)
	f = append(f, payload...)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

// wire opens the host's end of a card's network.
func (h *host) wire(t *testing.T, c nic, etherType uint16) *netns.Wire {
	t.Helper()
	w, err := h.Wire(c.tap(), etherType)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// probe is a frame that the host sends, and whether the guest is to see it.
type probe struct {
	name string
	to   string
	vlan uint16
	seen bool
}

// startCapture has the guest write what the card delivers to a file.
func startCapture(t *testing.T, g *Guest, c nic) {
	t.Helper()
	run(t, g, c.script("socat -u -b 4096 INTERFACE:$dev OPEN:/tmp/frames,creat,append > /dev/null 2>&1 & sleep 0.2"))
}

// checkProbes sends each probe three times, and holds what the guest captures to what it
// is to see. It tries again for some seconds: Linux sets the filters of a card in the
// background.
func checkProbes(t *testing.T, g *Guest, c nic, w *netns.Wire, probes []probe) {
	t.Helper()
	eventually(t, func() error { return tryProbes(t, g, c, w, probes) })
}

func tryProbes(t *testing.T, g *Guest, c nic, w *netns.Wire, probes []probe) error {
	t.Helper()
	const each, last = 3, "<last one>"
	send := func(label, to string, vlan uint16) {
		if err := w.Send(frame(t, to, vlan, etherTypeTests, []byte(label))); err != nil {
			t.Fatal(err)
		}
	}
	run(t, g, ": > /tmp/frames")
	want := map[string]int{}
	for _, p := range probes {
		label := "<" + p.name + ">"
		for range each {
			send(label, p.to, p.vlan)
		}
		if p.seen {
			want[label] = each
		}
	}
	send(last, linkInfo(t, g, c).Address, 0)
	want[last] = 1
	output := run(t, g, fmt.Sprintf(`
labels() { tr '\0' '\n' < /tmp/frames | grep -a -o '<[a-z0-9 ]*>'; }
for i in $(seq 50); do labels | grep -q '%s' && break; sleep 0.1; done
labels`, last))
	got := map[string]int{}
	for line := range strings.Lines(output) {
		got[strings.TrimSpace(line)]++
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("the guest sees frames %v, want %v", got, want)
	}
	return nil
}

// askARP asks in a VLAN for the address of machine guestID of a network, and tells whether
// the answer comes, in the same VLAN.
func askARP(t *testing.T, w *netns.Wire, vlan uint16, in network) bool {
	t.Helper()
	host, guest := net.ParseIP(in.v4(hostID)).To4(), net.ParseIP(in.v4(guestID)).To4()
	// RFC 826: Ethernet, IPv4, lengths 6 and 4, request; then the sender's and the target's addresses
	request := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, []byte(hostMAC), host, make([]byte, 6), guest)
	if err := w.Send(frame(t, "ff:ff:ff:ff:ff:ff", vlan, etherTypeARP, request)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 200)
	for deadline := time.Now().Add(time.Second / 2); ; {
		n, err := w.Receive(answer, deadline)
		if err != nil {
			return false
		}
		got := answer[2*6 : n]
		if vlan != 0 {
			if binary.BigEndian.Uint16(got) != etherTypeVLAN || binary.BigEndian.Uint16(got[2:])&0xfff != vlan {
				continue
			}
			got = got[4:]
		}
		// (behind the EtherType: 28 bytes, with the operation and the sender's address)
		if len(got) >= 2+28 && got[2+7] == 2 && net.IP(got[2+14:2+18]).Equal(guest) {
			return true
		}
	}
}
