package virtio_test

import (
	"encoding/binary"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/test/holdings"
)

// aim points the window for access through the configuration space at a place.
func (g *guest) aim(bar uint8, off, size uint32) {
	g.t.Helper()
	g.writeConfig(spec.CapOffsetBAR, []byte{bar})
	g.writeConfig(spec.CapOffsetOffset, binary.LittleEndian.AppendUint32(nil, off))
	g.writeConfig(spec.CapOffsetSize, binary.LittleEndian.AppendUint32(nil, size))
}

// writeConfig writes into the capability.
func (g *guest) writeConfig(off int, p []byte) {
	g.t.Helper()
	if err := g.dev.WriteRegion(g.ctx, client.RegionConfig, g.window+uint64(off), p); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) through(n int) uint64 {
	g.t.Helper()
	var p [8]byte
	copy(p[:], g.configSpace(int(g.window)+spec.CapOffsetWindow, n))
	return binary.LittleEndian.Uint64(p[:])
}

func TestAccessThroughConfigurationSpace(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	l.echo.WriteConfig(0, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	common := g.caps[spec.CapCommon].Offset
	device := g.caps[spec.CapDevice].Offset

	// Reads of each width.
	for _, c := range []struct {
		name      string
		bar       uint8
		off, size uint32
		want      uint64
	}{
		{"a byte", 0, device + 1, 1, 2},
		{"two bytes", 0, device + 4, 2, 0x0605},
		{"four bytes", 0, device + 4, 4, 0x08070605},
		{"number of queues", 0, common + spec.NumQueues, 2, 3},
	} {
		g.aim(c.bar, c.off, c.size)
		if got := g.through(int(c.size)); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}

	// What is no access leaves what the window held.
	for _, c := range []struct {
		name      string
		bar       uint8
		off, size uint32
	}{
		{"no size", 0, device, 0}, {"three bytes", 0, device, 3}, {"eight bytes", 0, device, 8},
		{"not aligned", 0, device + 1, 2}, {"not aligned to 4", 0, device + 2, 4},
		{"another BAR", 4, 0, 4}, {"no BAR", 7, 0, 4},
		{"behind the BAR", 0, 0x4000, 4}, {"far behind", 0, 0xfffffffc, 4},
	} {
		g.aim(0, device, 0)
		g.writeConfig(spec.CapOffsetWindow, []byte{0xaa, 0xbb, 0xcc, 0xdd})
		g.aim(c.bar, c.off, c.size)
		if got := g.through(4); got != 0xddccbbaa {
			t.Errorf("%s: reads %#x", c.name, got)
		}
		g.writeConfig(spec.CapOffsetWindow, []byte{0xaa, 0xbb, 0xcc, 0xdd})
	}
	if got := g.read(spec.CapDevice, 0, 8); got != 0x0807060504030201 {
		t.Errorf("%#x was written", got)
	}

	// A whole negotiation, as firmware makes it.
	put := func(off int, v uint64) {
		t.Helper()
		n := min(widths[off], 4)
		g.aim(0, common+uint32(off), uint32(n))
		g.writeConfig(spec.CapOffsetWindow, binary.LittleEndian.AppendUint64(nil, v)[:n])
		if widths[off] == 8 {
			g.aim(0, common+uint32(off)+4, 4)
			g.writeConfig(spec.CapOffsetWindow, binary.LittleEndian.AppendUint32(nil, uint32(v>>32)))
		}
	}
	put(spec.DeviceStatus, uint64(ack|driver))
	put(spec.DriverFeatureSelect, 1)
	put(spec.DriverFeature, spec.FeatureVersion1>>32)
	put(spec.DeviceStatus, uint64(ack|driver|featOK))
	r := g.newRing(1, 4, spec.NoVector)
	put(spec.QueueSelect, 1)
	put(spec.QueueSize, 8)
	put(spec.DeviceStatus, uint64(ack|driver|featOK|driverOK))
	if s := g.status(); s != ack|driver|featOK|driverOK {
		t.Fatal(s)
	}
	for range 3 {
		r.offer([]byte("by firmware"))
		g.aim(0, g.caps[spec.CapNotify].Offset+4, 2)
		g.writeConfig(spec.CapOffsetWindow, []byte{1, 0})
		if got := string(r.answer()); got != "erawmrif yb" {
			t.Errorf("%q", got)
		}
		until(t, "the pin", g.statusBit)
		g.aim(0, g.caps[spec.CapISR].Offset, 1)
		if isr := g.through(1); isr != spec.ISRQueue {
			t.Errorf("ISR %#x", isr)
		}
		if isr := g.through(1); isr != 0 {
			t.Errorf("ISR %#x when read again", isr)
		}
	}

	// The next client finds it pointing nowhere.
	g.leave()
	next := l.attach(t)
	if got := next.configSpace(int(next.window)+spec.CapOffsetBAR, spec.CapPCISize-spec.CapOffsetBAR); string(got) != string(make([]byte, len(got))) {
		t.Errorf("% x", got)
	}
}
