package guest

import (
	"os"
	"testing"
)

// passtHost is how a guest that passt serves reaches the host: passt takes an address of its
// own choice for the guest where the host has no network, with the host as the gateway.
const (
	passtGuest = "169.254.2.1"
	passtHost  = "169.254.2.2"
)

// startPasst starts passt, which answers to a guest's frames with the host's sockets, until
// the end of the test. It takes frames from a socket at path.
func startPasst(t *testing.T, h *host, path string) {
	t.Helper()
	// (passt gives up root, and others may only ping by a special socket)
	err := h.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.start(t, "passt", "--foreground", "--socket", path)
	exists(t, path)
}

// checkPasst asks of a card with passt at its other end what a user of the network asks. The
// guest has no other network.
func checkPasst(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	h.start(t, "iperf3", "-s")
	h.listening(t, "127.0.0.1:5201")
	checkDHCP(t, g, c, passtGuest, passtHost)
	run(t, g, "ping -c 3 -i 0.1 -w 5 "+passtHost)
	t.Run("iperf3", func(t *testing.T) { checkBandwidth(t, g, passtHost, "-P 1", "-P 1 -R", "-P 4", "-P 4 -R") })
	checkNoBadChecksums(t, g, h)
}
