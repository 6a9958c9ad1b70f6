package guest

import (
	"fmt"
	"testing"
)

// checkTapNetwork asks of a card whose other end is the host's tap device what a user of the
// network asks.
func checkTapNetwork(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	host4, host6, guest4, guest6 := c.in.v4(hostID), c.in.v6(hostID), c.in.v4(guestID), c.in.v6(guestID)
	h.startDHCP(t, c)
	h.start(t, "iperf3", "-s")
	h.listening(t, host4+":5201")
	checkOffloads(t, g, c)
	setMTU(t, g, h, c, standard)
	t.Run("DHCP", func(t *testing.T) {
		checkDHCP(t, g, c, guest4, host4)
	})
	run(t, g, c.up(guestID))
	checkPing(t, g, c.in, hostID)
	startEcho(t, g)
	t.Run("TCP loses nothing", func(t *testing.T) {
		checkEcho(t, h, guest4, 1, 8<<20)
		checkEcho(t, h, guest6, 4, 2<<20)
	})
	t.Run("UDP", func(t *testing.T) {
		checkDatagrams(t, h, guest4)
		checkDatagrams(t, h, guest6)
		checkSegmentedUDP(t, g, h, host4)
		checkSegmentedUDP(t, g, h, host6)
	})
	t.Run("iperf3", func(t *testing.T) {
		checkBandwidth(t, g, host4, "-P 1", "-P 1 -R", "-P 4", "-P 4 -R")
		checkBandwidth(t, g, host6, "-P 4", "-P 4 -R")
	})
	t.Run("jumbo frames", func(t *testing.T) { checkJumbo(t, g, h, c) })
	checkNoBadChecksums(t, g, h)
	run(t, g, "killall socat")
	t.Run("multicast", func(t *testing.T) { checkMulticast(t, g, h, c) })
	t.Run("VLAN", func(t *testing.T) { checkVLAN(t, g, h, c) })
	t.Run("filters", func(t *testing.T) { checkFilters(t, g, h, c) })
}

// checkDHCP has the guest ask for an address and a router, and wants these.
func checkDHCP(t *testing.T, g *Guest, c nic, address, router string) {
	t.Helper()
	run(t, g, c.script(fmt.Sprintf(`
cat > /tmp/bound <<'END'
#!/bin/sh
[ "$1" != bound ] || { ip addr add $ip/$mask dev $interface && ip route add default via $router; }
END
chmod +x /tmp/bound
ip link set $dev up
udhcpc -i $dev -n -q -f -t 10 -T 1 -s /tmp/bound
ip addr show dev $dev
ip addr show dev $dev | grep -q ' %s/'
ip route | grep -q 'default via %s'`, address, router)))
}
