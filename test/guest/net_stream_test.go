package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestStream has a guest use two cards with stream links: one reaches passt, which dies
// and comes back, the other one a card that QEMU emulates itself for the same guest.
func TestStream(t *testing.T) {
	h := newHost(t)
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	toPasst, toQEMU := filepath.Join(dir, "passt"), filepath.Join(dir, "qemu")
	outside, cable := newCard(0), newCard(1)
	s := serveCards(t, h,
		servedCard{nic: outside, link: "stream:unix=" + toPasst},
		servedCard{nic: cable, link: "stream:unix=" + toQEMU + ",server=on", options: []string{"--queues", "2"}})
	theirs := newCard(2)
	theirs.in = cable.in
	g := boot(t, Config{Sockets: s.sockets, CPUs: 2, Network: true, Args: []string{
		"-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path=" + toQEMU,
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net0,addr=%s,mac=%s,disable-legacy=on,romfile=", theirs.slot, theirs.mac)}})

	run(t, g, outside.script("ip link set $dev up"))
	t.Run("nobody is there", func(t *testing.T) { checkCarrier(t, g, outside, false) })
	t.Run("passt", func(t *testing.T) {
		startPasst(t, h, toPasst)
		checkCarrier(t, g, outside, true)
		checkPasst(t, g, h, outside)
	})
	t.Run("passt comes back", func(t *testing.T) {
		checkCarrier(t, g, outside, false) // (the last subtest's has ended)
		os.Remove(toPasst)
		startPasst(t, h, toPasst)
		checkCarrier(t, g, outside, true)
		run(t, g, "ping -c 2 -i 0.1 -w 5 "+passtHost)
	})
	t.Run("QEMU's own card", func(t *testing.T) {
		ours, other := member{nic: cable, id: 1, g: g}, member{nic: theirs, id: 2, g: g}
		ours.join(t)
		other.join(t)
		ours.checkReach(t, other)
		other.checkReach(t, ours)
		ours.checkTransfer(t, other)
		other.checkTransfer(t, ours)
		checkPairBandwidth(t, ours, other)
		checkMemberChecksums(t, ours, other)
	})
	powerOff(t, g)
}
