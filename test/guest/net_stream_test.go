package guest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
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
	t.Run("the next one is told who is there", func(t *testing.T) {
		checkCarrier(t, g, outside, false)
		os.Remove(toPasst)
		checkAnnouncement(t, toPasst, net.ParseIP(passtGuest))
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

// checkAnnouncement is the peer at a stream's path, and waits until the guest tells, unasked,
// who has its address.
func checkAnnouncement(t *testing.T, path string, address net.IP) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	deadline := time.Now().Add(15 * time.Second)
	l.SetDeadline(deadline)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	for {
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			t.Fatalf("no announcement of %v comes: %v", address, err)
		}
		f := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(conn, f); err != nil {
			t.Fatal(err)
		}
		if len(f) < 42 || binary.BigEndian.Uint16(f[12:]) != etherTypeARP {
			continue
		}
		// (sender and target of an announcement are the same; RFC 5227, 3)
		if sender, target := net.IP(f[28:32]), net.IP(f[38:42]); sender.Equal(address) && target.Equal(address) {
			return
		}
	}
}
