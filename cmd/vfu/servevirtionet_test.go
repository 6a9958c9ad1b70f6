package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
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
