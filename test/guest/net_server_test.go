package guest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// servedCard is one network card on vfu's command line.
type servedCard struct {
	nic
	link    string   // "": the card's tap device
	options []string // "--queues", "2"
}

// serveCards starts `vfu serve virtio-net` at the host with the cards, and connects the host
// to those that have tap devices. See startServer.
func serveCards(t *testing.T, h *host, cards ...servedCard) *server {
	t.Helper()
	sockets := newSockets(t, len(cards))
	args := []string{"serve", "virtio-net"}
	for i, c := range cards {
		if c.link == "" {
			c.link = "tap:" + c.tap()
		}
		args = append(args, "--socket", sockets[i], "--link", c.link, "--mac", c.mac)
		args = append(args, c.options...)
	}
	s := startServer(t, h.Start, sockets, args)
	for _, c := range cards {
		if c.link == "" || strings.HasPrefix(c.link, "tap:") {
			h.connect(t, c.nic)
		}
	}
	return s
}

// checkIdle measures the server for some seconds in which no test uses its devices.
func checkIdle(t *testing.T, s *server, span time.Duration) {
	t.Helper()
	limit := span / 100
	was := s.cpuTime(t)
	time.Sleep(span)
	used := s.cpuTime(t) - was
	t.Logf("the server used %v of processor time in %v", used, span)
	if used >= limit {
		t.Errorf("the server used %v of processor time in %v, the limit is %v", used, span, limit)
	}
}

// checkCarrier waits until the guest sees that there is somebody at the other end of the
// card's link, or nobody.
func checkCarrier(t *testing.T, g *Guest, c nic, up bool) {
	t.Helper()
	want := map[bool]string{false: "0", true: "1"}[up]
	run(t, g, c.script(fmt.Sprintf(`
for i in $(seq 50); do
  [ "$(cat $net/carrier)" = %s ] && exit
  sleep 0.1
done
echo "carrier is $(cat $net/carrier), want %[1]s"
exit 1`, want)))
}
