package link_test

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vfiouser/link"
	"vfiouser/link/vnet"
)

// Two interfaces of the kernel talk through two streams. What their taps leave undone is done
// before it goes into a socket, and what a socket has no room for waits.
func TestStreamFinishesWhatATapLeavesUndone(t *testing.T) {
	s := newSet(t)
	path := filepath.Join(t.TempDir(), "net.sock")
	server, client := open(t, s, "stream:unix="+path+",server=on"), open(t, s, "stream:unix="+path)
	a, b, inB := wireWith(t, s, 1, func(ta, tb link.Link) (a, b *wireEnd) {
		a, sa := joined(t, ta, server, 1, vnet.OffloadAll)
		b, sb := joined(t, tb, client, 1, vnet.OffloadAll)
		sa.awaitCarrier()
		sb.awaitCarrier()
		return a, b
	})
	transfer(t, 4<<20, inB)
	for _, e := range []*wireEnd{a, b} {
		if e.segmented.Load() == 0 || e.other.segmented.Load() != 0 || e.other.unsummed.Load() != 0 || e.other.longest.Load() > 1514 {
			t.Errorf("from the tap came %d frames to be segmented, from the stream %d; the longest had %d bytes",
				e.segmented.Load(), e.other.segmented.Load(), e.other.longest.Load())
		}
	}
}

// passt is a peer that others have written. It connects the kernel's interface, in a namespace
// without anything else, with the host.
func TestStreamWithPasst(t *testing.T) {
	passt, err := exec.LookPath("passt")
	if err != nil {
		t.Skip("there is no passt")
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0") // outside, on the host
	must(t, err)
	defer listener.Close()
	socket, assigned, router := startPasst(t, passt)
	s := newSet(t)
	stream := open(t, s, "stream:unix="+socket)
	inNamespace(t)
	a, p := joined(t, open(t, s, "tap:at"), stream, 1, vnet.OffloadAll)
	address(t, "at", assigned)
	awaitRunning(t, "at")
	a.awaitCarrier()
	p.awaitCarrier()

	// passt has the router's address mean the host's loopback.
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	d := net.Dialer{Timeout: 20 * time.Second}
	client, err := d.Dial("tcp4", net.JoinHostPort(router, port))
	must(t, err)
	defer client.Close()
	server, err := listener.Accept()
	must(t, err)
	defer server.Close()
	exchange(t, client, server, 8<<20)
	if a.segmented.Load() == 0 {
		t.Error("the kernel left nothing to be segmented")
	}
}

// startPasst returns where passt listens, and the addresses that it has for a guest and for
// its router.
func startPasst(t *testing.T, passt string) (socket, assigned, router string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "passt.sock")
	// It would become another user, who may not write here.
	cmd := exec.Command(passt, "--foreground", "--runas", "0", "--socket", socket)
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	said := bufio.NewScanner(stderr)
	var all []string
	for ready := false; !ready && said.Scan(); {
		line := strings.TrimSpace(said.Text())
		all = append(all, line)
		if value, ok := strings.CutPrefix(line, "assign: "); ok && assigned == "" {
			assigned = value
		}
		if value, ok := strings.CutPrefix(line, "router: "); ok && router == "" {
			router = value
		}
		ready = strings.HasPrefix(line, "UNIX domain socket bound")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, stderr)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	if net.ParseIP(assigned).To4() == nil || net.ParseIP(router).To4() == nil {
		t.Skipf("passt does not run here: %q", all)
	}
	return socket, assigned, router
}
