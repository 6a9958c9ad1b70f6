package qtest

import (
	"fmt"
	"testing"

	"vfiouser/test/card"
	"vfiouser/test/holdings"
)

// ejectPort is where a guest of the PC machine lets go of a PCI device that it was asked for
// (QEMU's docs/specs/acpi_pci_hotplug.rst): it writes a bit for the slot.
const ejectPort = 0xae08

// TestPlugAndUnplug plugs a card into a running machine, uses it, and unplugs it, again and
// again. The server must hold neither a descriptor nor a mapping more at the end. The card
// has no MSI-X: QEMU 11.1.3 itself aborts when a vfio-user device with MSI-X is unplugged.
func TestPlugAndUnplug(t *testing.T) {
	const rounds = 20
	c := card.New(card.Config{})
	socket := serve(t, c)
	r := start(t, "pc", shared, "")
	before := holdings.Of(t, holdings.Self)
	for i := range rounds {
		id := fmt.Sprintf("vfu%d", i)
		r.check(r.m.Plug(r.ctx, id, socket, slot))
		r.program(false)
		r.copy(0x10_0000, 0x20_0000, 64<<10)
		if status := r.register(card.RegStatus); status != card.StatusDone {
			t.Fatal(c.CopyError())
		}
		if during := holdings.Of(t, holdings.Self); during[holdings.GuestMemory] == 0 {
			t.Errorf("round %d: the server has no mapping of guest memory: %v", i, during)
		}
		r.check(r.m.Monitor(r.ctx, "device_del", map[string]string{"id": id}, nil))
		r.store(Ports, ejectPort, 1<<slot, 4)
		r.check(r.m.Unplugged(r.ctx, id))
		holdings.CheckReleased(t, holdings.Self, before)
	}
	if n := c.Clients(); n != rounds {
		t.Errorf("%d clients came, want %d", n, rounds)
	}
}

// TestQEMUDies kills QEMU while messages are outstanding and while a line is up.
func TestQEMUDies(t *testing.T) {
	c := card.New(card.Config{MSIX: true})
	socket := serve(t, c)
	before := holdings.Of(t, holdings.Self)
	for range 3 {
		r := start(t, "q35", anonymous, socket)
		r.program(true)
		r.setRegister(card.RegSource, 0x10_0000, 8)
		r.setRegister(card.RegChurn, 1, 4)
		r.setRegister(card.RegLine, 1, 4)
		r.until("a message is outstanding", func() bool { return r.register(card.RegOverlap) > 0 })
		r.m.Close()
		holdings.CheckReleased(t, holdings.Self, before)
	}
}
