package hostile

import (
	"context"
	"net"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	virtionet "vfiouser/devices/virtio-net"
	driver "vfiouser/drivers/virtio-net"
	"vfiouser/engine"
	"vfiouser/link"
)

// netLab is a lab of network cards: the healthy device is one on a loop and two on the
// switch that the victim is on, too.
type netLab struct {
	*lab
	sw         *link.Switch
	neighbours *neighbours
}

// victimMAC is the address of the victim's card.
var victimMAC = [6]byte{2, 0, 0, 0, 0, 0xee}

// victimPairs is how many queue pairs the victim has.
const victimPairs = 2

// newNetLab starts everything. cfg is the victim's, beside its link, address and pairs.
func newNetLab(t *testing.T, cfg virtionet.Config) *netLab {
	t.Helper()
	return newImpatientNetLab(t, cfg, 2*patience)
}

// newImpatientNetLab is newNetLab with the time-out given.
func newImpatientNetLab(t *testing.T, cfg virtionet.Config, timeout time.Duration) *netLab {
	t.Helper()
	l := &netLab{lab: &lab{engine: newEngine(t, timeout)}, sw: link.NewSwitch(link.SwitchConfig{})}
	l.lab.serves = l.talks
	cfg.Link, cfg.MAC, cfg.Pairs = l.sw, victimMAC[:], victimPairs
	l.victim = l.card(t, cfg)
	n := &neighbours{healthy: &healthy{start: time.Now(), few: 6}}
	for i, on := range [...]link.Link{link.Loop(), l.sw, l.sw} {
		n.macs[i] = [6]byte{2, 0, 0, 0, 0, byte(i + 1)}
		ep := l.card(t, virtionet.Config{Link: on, MAC: n.macs[i][:], Doorbells: virtio.Trap})
		n.cards[i] = openCard(t, ep.Path()).Queue(0)
	}
	l.neighbours, l.healthy = n, n.healthy
	// A card starts when it has time to, and what comes earlier is lost.
	over := n.underFlood()
	n.work(t, n.talk)
	over()
	return l
}

// card starts a card.
func (l *lab) card(t *testing.T, cfg virtionet.Config) *engine.Endpoint {
	t.Helper()
	c, err := virtionet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l.start(t, c)
}

// openCard drives the card at path until the test ends.
func openCard(t *testing.T, path string) *driver.NIC {
	t.Helper()
	nic, closeAll := driveCard(t, path)
	t.Cleanup(closeAll)
	return nic
}

// driveCard drives the card at path until the function that it returns is called.
func driveCard(t *testing.T, path string) (nic *driver.NIC, closeAll func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dev, err := client.Attach(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := client.NewMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if nic, err = driver.Open(ctx, dev, mem, driver.Options{}); err != nil {
		t.Fatal(err)
	}
	return nic, func() {
		if err := nic.Close(); err != nil {
			t.Error(err)
		}
		dev.Close()
		mem.Close()
	}
}

// talks is a client of the victim that behaves: what it sends arrives, and it receives what
// the neighbours send.
func (l *netLab) talks(t *testing.T) {
	t.Helper()
	nic, closeAll := driveCard(t, l.victim.Path())
	defer closeAll()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if mac := nic.MAC(); mac != victimMAC {
		t.Errorf("the victim afterwards: its address is %v", net.HardwareAddr(mac[:]))
	}
	q, n := nic.Queue(0), l.neighbours
	number := n.probe.Load() + 1
	if err := q.WriteFrame(ctx, newFrame(n.macs[2], victimMAC, probeFrame, number, 1000)); err != nil {
		t.Fatalf("the victim afterwards: %v", err)
	}
	buf := make([]byte, maxBytes)
	for received := 0; received < 3; {
		size, err := q.ReadFrame(ctx, buf)
		if err != nil {
			t.Fatalf("the victim afterwards: %v", err)
		}
		kind, _, err := checkFrame(buf[:size])
		if err != nil {
			t.Fatalf("the victim afterwards: %v", err)
		}
		if kind != foreignFrame {
			received++
		}
	}
	for begin := time.Now(); n.probe.Load() != number; time.Sleep(pace) { // polls
		if err := n.err(); err != nil {
			t.Fatalf("the healthy device: %v", err)
		}
		if time.Since(begin) > patience {
			t.Fatal("the victim afterwards: what it sends does not arrive")
		}
	}
}

// netModes are ways in which a card learns of new buffers.
var netModes = []virtio.Doorbells{virtio.Trap, virtio.Mmap}

// forNetModes runs a test on a lab for each of them.
func forNetModes(t *testing.T, run func(t *testing.T, l *netLab)) {
	for _, mode := range netModes {
		t.Run(mode.String(), func(t *testing.T) { run(t, newNetLab(t, virtionet.Config{Doorbells: mode})) })
	}
}
