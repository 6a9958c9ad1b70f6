package guest

import (
	"strings"
	"testing"
	"time"
)

// TestCardDoorbellModes uses a card in each doorbell mode. Those whose doorbells are trapped
// cost nothing at rest.
func TestCardDoorbellModes(t *testing.T) {
	h := newHost(t)
	auto, trap, mmap := newCard(0), newCard(1), newCard(2)
	trapped := serveCards(t, h, servedCard{nic: auto}, servedCard{nic: trap, options: []string{"--doorbells", "trap"}})
	mapped := serveCards(t, h, servedCard{nic: mmap, options: []string{"--doorbells", "mmap"}})
	before := mapped.holdings(t)
	g := boot(t, Config{Sockets: append(trapped.sockets, mapped.sockets...), Network: true})
	tree := memoryTree(t, g)
	for _, socket := range trapped.sockets {
		if strings.Contains(tree, socket+" BAR 0 mmaps") {
			t.Errorf("BAR 0 of the card at %s is mapped", socket)
		}
	}
	if !strings.Contains(tree, mapped.sockets[0]+" BAR 0 mmaps") {
		t.Error("BAR 0 of the card with mapped doorbells is not mapped")
	}
	startEcho(t, g)
	for name, c := range map[string]nic{"auto": auto, "trap": trap, "mmap": mmap} {
		t.Run(name, func(t *testing.T) {
			checkSimply(t, g, h, c)
			checkTaken(t, g, h, c, rebind, 5)
		})
	}
	t.Run("an idle guest costs less than 1 % of a core", func(t *testing.T) { checkIdle(t, trapped, 5*time.Second) })
	powerOff(t, g)
	mapped.checkReleased(t, before)
}

// TestCardMemoryWithoutDescriptor uses cards, with split and with packed rings, from a guest
// whose memory the server cannot map: rings and frames go by messages. The guest is killed
// in the middle of it.
func TestCardMemoryWithoutDescriptor(t *testing.T) {
	h := newHost(t)
	split, packed := newCard(0), newCard(1)
	s := serveCards(t, h,
		servedCard{nic: split, options: []string{"--without-features", "ring_packed"}},
		servedCard{nic: packed, link: "tap:" + packed.tap() + ",queues=2", options: []string{"--queues", "2"}})
	before := s.holdings(t)
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2, Network: true, Memory: MemoryAnonymous})
	startEcho(t, g)
	for _, c := range []nic{split, packed} {
		checkSimply(t, g, h, c)
		checkTaken(t, g, h, c, rebind, 5)
	}
	checkNoBadChecksums(t, g, h)
	during(t, h, packed, false, g.Kill)
	s.checkReleased(t, before)
}

// checkSimply uses a card of a guest that sends back what comes.
func checkSimply(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	run(t, g, c.up(guestID))
	checkPing(t, g, c.in, hostID)
	checkEcho(t, h, c.in.v4(guestID), 4, 1<<20)
	checkEcho(t, h, c.in.v6(guestID), 1, 4<<20)
	checkDatagrams(t, h, c.in.v4(guestID))
}
