package guest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// checkFilters has the guest's kernel set the filters for addresses and VLANs that a card
// has, and holds what arrives to them.
func checkFilters(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	const (
		own, renamed  = "the card itself", "its other name"
		stranger      = "a stranger"
		second        = "a second address"
		everybody     = "everybody"
		group, groups = "a group", "another group"
		promiscuous   = "promiscuous"
		tagged5       = "vlan 5"
		tagged6       = "vlan 6"
		all           = "ff:ff:ff:ff:ff:ff"
		newMAC        = "02:00:00:00:77:77"
	)
	w := h.wire(t, c, etherTypeTests)
	probes := func(tags bool, seen ...string) []probe {
		list := []probe{
			{name: own, to: c.mac}, {name: renamed, to: newMAC}, {name: stranger, to: "02:00:00:00:66:66"},
			{name: second, to: "02:00:00:00:55:55"}, {name: everybody, to: all},
			{name: group, to: "33:33:00:00:12:34"}, {name: groups, to: "33:33:00:00:12:35"},
		}
		if tags {
			list = append(list, probe{name: tagged5, to: all, vlan: 5}, probe{name: tagged6, to: all, vlan: 6})
		}
		for i := range list {
			for _, name := range seen {
				list[i].seen = list[i].seen || list[i].name == name
			}
		}
		return list
	}
	startCapture(t, g, c)
	for _, step := range []struct {
		name, script string
		seen         []string
	}{
		{"nothing set", "", []string{own, everybody}},
		{"a group", "ip maddr add 33:33:00:00:12:34 dev $dev", []string{own, everybody, group}},
		{"all groups", "ip link set $dev allmulticast on", []string{own, everybody, group, groups}},
		{"no group", "ip link set $dev allmulticast off; ip maddr del 33:33:00:00:12:34 dev $dev", []string{own, everybody}},
		{"a second address", "bridge fdb add 02:00:00:00:55:55 dev $dev", []string{own, everybody, second}},
		{promiscuous, "ip link set $dev promisc on", []string{own, everybody, second, renamed, stranger, group, groups}},
		{"not promiscuous", "ip link set $dev promisc off; bridge fdb del 02:00:00:00:55:55 dev $dev", []string{own, everybody}},
		{"another name", "ip link set $dev address " + newMAC, []string{renamed, everybody}},
		{"its own name", "ip link set $dev address " + c.mac, []string{own, everybody}},
		{"VLAN 5", "ip link add link $dev name $dev.5 type vlan id 5; ip link set $dev.5 up", []string{own, everybody, tagged5}},
		{"no VLAN", "ip link del $dev.5", []string{own, everybody}},
	} {
		t.Run(step.name, func(t *testing.T) {
			run(t, g, c.script(step.script))
			// (whether a promiscuous card filters VLANs is left to the device)
			checkProbes(t, g, c, w, probes(step.name != promiscuous, step.seen...))
		})
	}
	run(t, g, "killall socat")
}

// checkVLAN has the guest use a VLAN, and asks for its address there and in another one.
func checkVLAN(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	in := c.in + 100
	w := h.wire(t, c, etherTypeARP)
	run(t, g, c.script(fmt.Sprintf(`
ip link add link $dev name $dev.5 type vlan id 5
ip addr add %s/24 dev $dev.5
ip link set $dev.5 up`, in.v4(guestID))))
	eventually(t, func() error {
		if !askARP(t, w, 5, in) {
			return errors.New("the guest does not answer in its VLAN")
		}
		return nil
	})
	if askARP(t, w, 6, in) {
		t.Error("the guest answers in a VLAN that it has not joined")
	}
	run(t, g, c.script("ip link del $dev.5"))
}

// checkMulticast has the guest join groups, and sends to them.
func checkMulticast(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	const group4, group6, port = "239.9.9.9", "ff15::9:9", 5009
	h.ip(t, fmt.Sprintf("route replace %s/32 dev %s", group4, c.tap()))
	run(t, g, c.script(fmt.Sprintf(`
socat -u UDP4-RECV:%[1]d,ip-add-membership=%[2]s:%[4]s OPEN:/tmp/heard4,creat > /dev/null 2>&1 &
socat -u UDP6-RECV:%[1]d,ipv6-v6only=1,ipv6-join-group=[%[3]s]:$dev OPEN:/tmp/heard6,creat > /dev/null 2>&1 &
for i in $(seq 50); do
  [ $(ip maddr show dev $dev | grep -c -e %[2]s -e %[3]s) = 2 ] && exit
  sleep 0.1
done
ip maddr; exit 1`, port, group4, group6, c.in.v4(guestID))))
	for family, address := range map[string]string{
		"4": fmt.Sprintf("%s:%d", group4, port),
		"6": fmt.Sprintf("[%s%%%s]:%d", group6, c.tap(), port),
	} {
		conn, err := h.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { // (the guest sets the card's filter in the background)
			if _, err := fmt.Fprintf(conn, "to all by %s", family); err != nil {
				return err
			}
			if heard := run(t, g, "cat /tmp/heard"+family); !strings.HasPrefix(heard, "to all by "+family) {
				return fmt.Errorf("IPv%s multicast: the guest heard %q", family, heard)
			}
			return nil
		})
		conn.Close()
	}
	run(t, g, "killall socat; rm /tmp/heard?")
}

// MTUs: of ordinary Ethernet, and of jumbo frames, which the cards of most tests offer.
const (
	standard = 1500
	jumbo    = 9000
)

// setMTU gives both ends an MTU.
func setMTU(t *testing.T, g *Guest, h *host, c nic, mtu int) {
	t.Helper()
	h.ip(t, fmt.Sprintf("link set %s mtu %d", c.tap(), mtu))
	run(t, g, c.script(fmt.Sprintf("ip link set $dev mtu %d", mtu)))
}

// checkJumbo gives both ends the MTU of jumbo frames: packets of that size are not cut.
func checkJumbo(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	const headers = 20 + 8
	setMTU(t, g, h, c, jumbo)
	run(t, g, fmt.Sprintf(`
cut() { nstat -asz IpFragCreates; }
was=$(cut)
ping -c 3 -i 0.1 -w 5 -s %d %s
[ "$(cut)" = "$was" ] || { echo "fragments: $(cut), before $was"; exit 1; }`, jumbo-headers, c.in.v4(hostID)))
	checkEcho(t, h, c.in.v4(guestID), 1, 4<<20)
	setMTU(t, g, h, c, standard)
}
