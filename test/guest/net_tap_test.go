package guest

import (
	"testing"
	"time"
)

// TestTap leads a card with two queue pairs, whose other end is a tap device of the host,
// through what happens to a network card.
func TestTap(t *testing.T) {
	h := newHost(t)
	c := newCard(0)
	s := serveCards(t, h, servedCard{nic: c, link: "tap:" + c.tap() + ",queues=2",
		options: []string{"--queues", "2", "--mtu", "9000"}})
	before := s.holdings(t)
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2, Network: true})
	checkCardIdentity(t, g, c, jumbo, 2)
	checkTapNetwork(t, g, h, c)
	t.Run("an idle guest costs less than 1 % of a core", func(t *testing.T) { checkIdle(t, s, 5*time.Second) })
	startEcho(t, g)
	t.Run("the number of queues changes under traffic", func(t *testing.T) { checkChannels(t, g, h, c) })
	t.Run("RSS", func(t *testing.T) { checkRSS(t, g, h, c) })
	t.Run("the other end goes down and up", func(t *testing.T) { checkOtherEnd(t, g, h, c) })
	during := s.holdings(t)
	t.Run("the driver lets go of the card under traffic", func(t *testing.T) {
		checkTaken(t, g, h, c, rebind, 50)
		checkTaken(t, g, h, c, rescan, 5)
		s.checkReleased(t, during)
	})
	t.Run("the guest reboots under traffic", func(t *testing.T) {
		checkReboot(t, g, h, c)
		s.checkReleased(t, during)
	})
	powerOff(t, g)
	s.checkReleased(t, before)
}

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
