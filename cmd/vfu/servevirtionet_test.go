package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vfiouser/client"
	driver "vfiouser/drivers/virtio-net"
)

// inspectedCard is what a card says of itself.
func inspectedCard(t *testing.T, socket string) *virtioReport {
	t.Helper()
	text, err := inspected(t, "--json", socket)
	if err != nil {
		t.Fatal(err)
	}
	var r inspection
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Virtio == nil || r.Virtio.Network == nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r.Virtio
}

func TestServeCards(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	cmd := command(t, "serve", "virtio-net",
		"--socket", a, "--link", "switch:lan", "--mac", "52:54:00:12:34:56", "--queues", "4", "--mtu", "9000", "--queue-size", "512", "--speed", "25000",
		"--socket", b, "--link", "switch:lan", "--without-features", "packed,mac",
		"--socket", c, "--link", "loop", "--features", "", "--doorbells", "mmap", "--idle-poll", "5ms")
	if ready, want := serve(t, cmd), "ready: virtio-net on "+a+", "+b+", "+c+"\n"; ready != want {
		t.Errorf("says %q, want %q", ready, want)
	}
	v := inspectedCard(t, a)
	if n := v.Network; n.MAC != "52:54:00:12:34:56" || n.MaxPairs != 4 || n.MTU != 9000 || n.Speed == nil || *n.Speed != 25_000 || n.Link != "up" {
		t.Errorf("first card %+v", n)
	}
	if v.Queues != 9 || slices.Max(v.QueueSizes) != 512 || !slices.Contains(v.FeatureNames, "ring_packed") {
		t.Errorf("first card %+v", v)
	}
	v = inspectedCard(t, b)
	if slices.Contains(v.FeatureNames, "ring_packed") || slices.Contains(v.FeatureNames, "mac") || !slices.Contains(v.FeatureNames, "event_idx") {
		t.Errorf("second card offers %q", v.FeatureNames)
	}
	if v.Queues != 3 || slices.Max(v.QueueSizes) != 1024 {
		t.Errorf("second card %+v", v)
	}
	if v = inspectedCard(t, c); !slices.Equal(v.FeatureNames, []string{"version_1"}) {
		t.Errorf("third card offers %q", v.FeatureNames)
	}
	terminate(t, cmd)
}

// nic attaches to a socket and opens the card.
func nic(t *testing.T, socket string) (n *driver.NIC, detach func()) {
	t.Helper()
	ctx := t.Context()
	dev, err := client.Attach(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := client.NewMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	n, err = driver.Open(ctx, dev, mem, driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return n, func() { n.Close(); dev.Close(); mem.Close() }
}

// frame is one of 100 bytes.
func frame(to, from [6]byte, text string) []byte {
	f := make([]byte, 100)
	copy(f, to[:])
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], etherType)
	copy(f[etherHeader:], text)
	return f
}

// exchanged sends a frame and returns what arrives. It is sent again as long as nothing does: a
// card drops frames until its queues run, which is after its driver was opened.
func exchanged(t *testing.T, from, to *driver.NIC, frame []byte) []byte {
	t.Helper()
	got := make([]byte, 2048)
	for {
		if err := from.Queue(0).WriteFrame(t.Context(), frame); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		n, err := to.Queue(0).ReadFrame(ctx, got)
		cancel()
		if err == nil {
			return got[:n]
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

func TestCardsOfASwitch(t *testing.T) {
	dir := t.TempDir()
	a, b, recording := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "b.pcapng")
	cmd := command(t, "serve", "virtio-net", "--socket", a, "--link", "switch:lan", "--socket", b, "--link", "pcap:"+recording+",switch:lan")
	serve(t, cmd)
	from, detachA := nic(t, a)
	to, detachB := nic(t, b)
	sent := frame(to.MAC(), from.MAC(), "there is somebody at the other end")
	if got := exchanged(t, from, to, sent); !bytes.Equal(got, sent) {
		t.Errorf("received %q", got)
	}
	terminate(t, cmd) // with clients attached
	detachA()
	detachB()
	for _, path := range []string{a, b} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there", path)
		}
	}
	if record, err := os.ReadFile(recording); err != nil || !bytes.Contains(record, sent) {
		t.Errorf("the recording lacks the frame: %v, %d bytes", err, len(record))
	}
}

// A link that cannot be opened takes back the devices that were made before it.
func TestLinkThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	a, b, recording := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "none", "b.pcapng")
	path := configOf(t, "[[virtio-net]]\nsocket = \""+a+"\"\nlink = \"loop\"\n[[virtio-net]]\nsocket = \""+b+"\"\nlink = \"pcap:"+recording+",loop\"\n")
	text, err := command(t, "serve", "--config", path).CombinedOutput()
	if err == nil || !strings.HasPrefix(string(text), "vfu: "+path+":4: link: ") || !strings.Contains(string(text), recording) {
		t.Errorf("%v, %s", err, text)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
