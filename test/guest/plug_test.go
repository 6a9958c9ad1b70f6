package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vfiouser/engine"
	"vfiouser/test/card"
	"vfiouser/test/holdings"
)

const (
	// rootPort is where devices are plugged into the running machine: a PCI Express root port
	// behind which the guest sees them as bus 1.
	rootPort = "pcie-root-port,id=hotport,chassis=1,slot=1,bus=pcie.0,addr=10.0"
	plugged  = "0000:01:00.0"

	plugRounds   = 5
	removeRounds = 20
)

// pciDevice is a device's folder in the guest.
func pciDevice(address string) string { return "/sys/bus/pci/devices/" + address }

// serveCard serves a card, which has no MSI-X, in this process.
func serveCard(t *testing.T) (c *card.Card, socket string) {
	t.Helper()
	c = card.New(card.Config{})
	e, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	ep, err := e.Register(filepath.Join(dir, "card.sock"), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	return c, ep.Path()
}

// TestPlugAndUnplug plugs a card into a running guest, uses it, and unplugs it. The guest
// lets go of it by itself: its kernel is asked through the root port. (QEMU 11.1.3 itself
// aborts when a vfio-user device with MSI-X is unplugged, so the card has none.)
func TestPlugAndUnplug(t *testing.T) {
	c, socket := serveCard(t)
	before := holdings.Of(t, holdings.Self)
	g := boot(t, Config{Args: []string{"-device", rootPort}})
	running := holdings.Of(t, holdings.Self) // with the connections to QEMU
	for round := range plugRounds {
		ctx, cancel := timeout(t, bootTimeout)
		defer cancel()
		arguments := map[string]any{
			"driver": "vfio-user-pci", "id": "card", "bus": "hotport",
			"socket": map[string]string{"type": "unix", "path": socket},
		}
		if err := g.Monitor(ctx, "device_add", arguments, nil); err != nil {
			t.Fatal(err)
		}
		checkCard(t, g)
		if round == 0 {
			checkPowerStates(t, g)
		}
		if err := g.Unplug(ctx, "card"); err != nil {
			t.Fatal(err)
		}
		holdings.CheckReleased(t, holdings.Self, running)
		run(t, g, "[ ! -e "+pciDevice(plugged)+" ]")
	}
	if n := c.Clients(); n != plugRounds {
		t.Errorf("%d clients came, want %d", n, plugRounds)
	}
	powerOff(t, g)
	g.Close()
	holdings.CheckReleased(t, holdings.Self, before)
}

// checkCard waits until the guest has found the card, and reads its id register.
func checkCard(t *testing.T, g *Guest) {
	t.Helper()
	output := run(t, g, fmt.Sprintf(`
card=%s
for i in $(seq 100); do [ -e $card/resource0 ] && break; sleep 0.1; done
lspci -s %s -nn | grep -q '\[%04x:%04x\]'
echo 1 > $card/enable
devmem $(head -n 1 $card/resource | cut -d ' ' -f 1) 32`, pciDevice(plugged), plugged, card.Vendor, card.DeviceID))
	if want := fmt.Sprintf("0x%08X", card.ID); strings.TrimSpace(output) != want {
		t.Errorf("the card's id reads %s, want %s", output, want)
	}
}

// checkPowerStates leads the card, which has no driver, through runtime suspend and resume,
// and, by its power management capability, through D3hot: there it does not answer to
// memory accesses, and afterwards it works again.
func checkPowerStates(t *testing.T, g *Guest) {
	t.Helper()
	run(t, g, fmt.Sprintf(`
power=%s/power
echo auto > $power/control
echo 0 > $power/autosuspend_delay_ms 2> /dev/null || true
for i in $(seq 50); do [ $(cat $power/runtime_status) = suspended ] && break; sleep 0.1; done
cat $power/runtime_status
[ $(cat $power/runtime_status) = suspended ]
echo on > $power/control
[ $(cat $power/runtime_status) = active ]`, pciDevice(plugged)))
	checkCard(t, g)
	for range 3 {
		output := run(t, g, fmt.Sprintf(`
setpci -s %[1]s CAP_PM+4.w=3
setpci -s %[1]s CAP_PM+4.w
setpci -s %[1]s CAP_PM+4.w=0
setpci -s %[1]s CAP_PM+4.w`, plugged))
		var d3, d0 uint16
		if _, err := fmt.Sscanf(output, "%x\n%x", &d3, &d0); err != nil || d3&3 != 3 || d0&3 != 0 {
			t.Errorf("power state %q after D3hot and D0 were asked for (%v)", output, err)
		}
		checkCard(t, g)
	}
}
