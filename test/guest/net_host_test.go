package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vfiouser/test/netns"
	"vfiouser/test/transcript"
)

// host is a machine of its own at the other end of a guest's cards: a network namespace.
type host struct {
	*netns.Namespace
	lab *Lab
}

// newHost makes a host. Without root the test is skipped, unless it is demanded.
func newHost(t *testing.T) *host {
	t.Helper()
	l := lab(t)
	ns, err := netns.New()
	if errors.Is(err, netns.ErrUnavailable) {
		unavailable(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &host{ns, l}
}

// ip runs the program ip.
func (h *host) ip(t *testing.T, args string) {
	t.Helper()
	if _, err := h.Run(h.lab.Program("ip"), strings.Fields(args)...); err != nil {
		t.Fatal(err)
	}
}

// connect gives the host its addresses in a card's network, and sets the interface up.
func (h *host) connect(t *testing.T, c nic) {
	t.Helper()
	h.ip(t, fmt.Sprintf("addr add %s/24 dev %s", c.in.v4(hostID), c.tap()))
	h.ip(t, fmt.Sprintf("addr add %s/64 dev %s", c.in.v6(hostID), c.tap()))
	h.ip(t, fmt.Sprintf("link set %s up", c.tap()))
}

// start runs a program of the lab until the end of the test. When the test fails, what it
// printed is shown.
func (h *host) start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(h.lab.Program(name), args...)
	var output transcript.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // (fails only if it has ended already)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, output.String())
		}
	})
}

// startDHCP serves addresses in a card's network: only the guest's one.
func (h *host) startDHCP(t *testing.T, c nic) {
	t.Helper()
	dir := t.TempDir()
	leases, config := filepath.Join(dir, "leases"), filepath.Join(dir, "udhcpd.conf")
	text := fmt.Sprintf("interface %s\nstart %[2]s\nend %[2]s\nmax_leases 1\nlease_file %s\npidfile %s\n"+
		"option subnet 255.255.255.0\noption router %s\n",
		c.tap(), c.in.v4(guestID), leases, filepath.Join(dir, "pid"), c.in.v4(hostID))
	for path, content := range map[string]string{leases: "", config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.start(t, "busybox", "udhcpd", "-f", "-a", "0", config)
}

// listening waits until a TCP port is open.
func (h *host) listening(t *testing.T, address string) {
	t.Helper()
	eventually(t, func() error {
		conn, err := h.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// network is one of the networks between the host and its guests: 10.9.N.0/24, fd09:N::/64.
type network int

// What a network's machines are called there.
const (
	hostID  = 1
	guestID = 2
)

func (w network) v4(id int) string { return fmt.Sprintf("10.9.%d.%d", w, id) }
func (w network) v6(id int) string { return fmt.Sprintf("fd09:%x::%x", int(w), id) }
