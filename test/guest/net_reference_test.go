package guest

import (
	"fmt"
	"path/filepath"
	"testing"
)

// TestReferenceCard asks of the network card that QEMU itself emulates what the other tests
// ask of ours: when it fails too, the fault lies with the suite or the guest's packages.
func TestReferenceCard(t *testing.T) {
	h := newHost(t)
	c := newCard(0)
	h.ip(t, "tuntap add "+c.tap()+" mode tap vnet_hdr")
	h.connect(t, c)
	g := boot(t, Config{Network: true, Start: h.Start, Args: []string{
		"-netdev", "tap,id=net0,script=no,downscript=no,ifname=" + c.tap(),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net0,addr=%s,mac=%s,host_mtu=9000,disable-legacy=on,romfile=", c.slot, c.mac)}})
	t.Log(lab(t).Versions())
	checkCardIdentity(t, g, c, jumbo, 1)
	checkTapNetwork(t, g, h, c)
}

// TestReferenceStream does so with passt at the other end.
func TestReferenceStream(t *testing.T) {
	h := newHost(t)
	c := newCard(0)
	path := filepath.Join(t.TempDir(), "passt")
	startPasst(t, h, path)
	g := boot(t, Config{Network: true, Args: []string{
		"-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path=" + path,
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net0,addr=%s,mac=%s,disable-legacy=on,romfile=", c.slot, c.mac)}})
	checkPasst(t, g, h, c)
}
