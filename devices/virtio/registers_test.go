package virtio_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/test/holdings"
)

func TestConfigurationSpace(t *testing.T) {
	holdings.CheckLeaks(t)
	g := newLab(t, virtio.Config{Type: 1, Class: 0x020000, Queues: 5}).attach(t)
	space := g.configSpace(0, 256)
	le := binary.LittleEndian
	for _, c := range []struct {
		name      string
		got, want uint32
	}{
		{"vendor and device", le.Uint32(space[0x00:]), 0x1041<<16 | 0x1af4},
		{"revision and class", le.Uint32(space[0x08:]), 0x020000<<8 | 1},
		{"subsystem", le.Uint32(space[0x2c:]), 0x1041<<16 | 0x1af4},
		{"interrupt pin", uint32(space[0x3d]), 1},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, c.got, c.want)
		}
	}
	for _, want := range []spec.Capability{
		{Type: spec.CapCommon, BAR: 0, Offset: 0, Size: spec.CommonSize},
		{Type: spec.CapISR, BAR: 0, Offset: 0x1000, Size: 1},
		{Type: spec.CapDevice, BAR: 0, Offset: 0x2000, Size: echoConfigSize},
		{Type: spec.CapNotify, BAR: 0, Offset: 0x3000, Size: 5 * 4, Multiplier: 4},
		{Type: spec.CapPCI},
	} {
		if got := g.caps[want.Type]; got != want {
			t.Errorf("capability %+v, want %+v", got, want)
		}
	}
	for i, size := range []uint64{0: 0x4000, 4: 0x1000, 5: 0x1000} {
		r, err := g.dev.Region(g.ctx, i)
		if err != nil || r.Size != size {
			t.Errorf("BAR %d has %#x bytes, want %#x (%v)", i, r.Size, size, err)
		}
		r.Close()
	}
	if info, err := g.dev.IRQInfo(g.ctx, client.IRQMSIX); err != nil || info.Count != 6 {
		t.Errorf("%d vectors (%v)", info.Count, err)
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	good := virtio.Config{Type: 1, Queues: 1}
	if f, err := virtio.New(good, newEcho(1)); err != nil {
		t.Error(err)
	} else if f.Features() != spec.FeatureVersion1 {
		t.Errorf("offers %s", spec.FeatureNames(f.Features()))
	}
	for name, change := range map[string]func(c *virtio.Config){
		"no type":                func(c *virtio.Config) { c.Type = 0 },
		"type too large":         func(c *virtio.Config) { c.Type = 64 },
		"no queue":               func(c *virtio.Config) { c.Queues = 0 },
		"too many queues":        func(c *virtio.Config) { c.Queues = virtio.MaxQueues + 1 },
		"size no power of two":   func(c *virtio.Config) { c.QueueSize = 100 },
		"size too large":         func(c *virtio.Config) { c.QueueSize = 1 << 16 },
		"class of 25 bits":       func(c *virtio.Config) { c.Class = 1 << 24 },
		"configuration too long": func(c *virtio.Config) { c.ConfigSize = virtio.MaxConfigSize + 1 },
		"unknown doorbells":      func(c *virtio.Config) { c.Doorbells = 9 },
		"negative pause":         func(c *virtio.Config) { c.IdlePoll = -1 },
		"reserved feature":       func(c *virtio.Config) { c.Features = spec.FeatureSRIOV },
	} {
		c := good
		change(&c)
		if _, err := virtio.New(c, newEcho(1)); !errors.Is(err, virtio.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, d := range []virtio.Doorbells{virtio.Auto, virtio.Trap, virtio.Mmap} {
		if got, err := virtio.ParseDoorbells(d.String()); err != nil || got != d {
			t.Errorf("%v is parsed as %v (%v)", d, got, err)
		}
	}
	if _, err := virtio.ParseDoorbells("bell"); err == nil {
		t.Error("bell is a doorbell mode")
	}
}

// access is a read or a write of the common configuration and what the field then holds.
type access struct {
	name   string
	off, n int
	write  uint64
	want   uint64 // of the field at off, read with its width
}

// check makes the writes one after the other.
func (g *guest) check(accesses []access) {
	g.t.Helper()
	for _, a := range accesses {
		if a.n > 0 {
			g.write(spec.CapCommon, a.off, a.n, a.write)
		}
		off := a.off
		if _, ok := widths[off]; !ok {
			off &^= 7 // a half of an address
		}
		if got := g.get(off); got != a.want {
			g.t.Errorf("%s: %#x at %#x, want %#x", a.name, got, off, a.want)
		}
	}
}

func TestRegistersAfterReset(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{Queues: 3})
	g := l.attach(t)
	fresh := []access{
		{name: "device feature select", off: spec.DeviceFeatureSelect, want: 0},
		{name: "device features", off: spec.DeviceFeature, want: allFeatures & 0xffffffff},
		{name: "driver feature select", off: spec.DriverFeatureSelect, want: 0},
		{name: "driver features", off: spec.DriverFeature, want: 0},
		{name: "config vector", off: spec.ConfigMSIXVector, want: spec.NoVector},
		{name: "queues", off: spec.NumQueues, want: 3},
		{name: "status", off: spec.DeviceStatus, want: 0},
		{name: "queue select", off: spec.QueueSelect, want: 0},
		{name: "queue size", off: spec.QueueSize, want: maxSize},
		{name: "queue vector", off: spec.QueueMSIXVector, want: spec.NoVector},
		{name: "queue enable", off: spec.QueueEnable, want: 0},
		{name: "notify offset", off: spec.QueueNotifyOff, want: 0},
		{name: "descriptor area", off: spec.QueueDesc, want: 0},
		{name: "driver area", off: spec.QueueDriver, want: 0},
		{name: "device area", off: spec.QueueDevice, want: 0},
		{name: "notification data", off: spec.QueueNotifConfigData, want: 0},
		{name: "queue reset", off: spec.QueueReset, want: 0},
	}
	g.check(fresh)
	// A reset undoes whatever there was, of queues that are not selected, too.
	for range 2 {
		rings := g.drive(2, 0)
		g.set(spec.ConfigMSIXVector, 1)
		g.set(spec.DeviceFeatureSelect, 1)
		g.set(spec.QueueSelect, 1)
		g.set(spec.QueueSize, 8)
		rings[0].exchange("x")
		g.reset()
		for i := range uint64(3) {
			g.check(append(fresh[:len(fresh):len(fresh)], access{"select", spec.QueueSelect, 2, i, i}))
			for _, a := range fresh[8:11] {
				g.check([]access{a})
			}
			g.set(spec.QueueSelect, 0)
		}
	}
}

func TestRegisters(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{Queues: 3})
	g := l.attach(t)
	const vectors = 4
	g.check([]access{
		// Features by their selectors; there are 64 bits.
		{"select high", spec.DeviceFeatureSelect, 4, 1, 1},
		{name: "high features", off: spec.DeviceFeature, want: allFeatures >> 32},
		{"select beyond", spec.DeviceFeatureSelect, 4, 2, 2},
		{name: "features beyond", off: spec.DeviceFeature, want: 0},
		{"select far beyond", spec.DeviceFeatureSelect, 4, 0xffffffff, 0xffffffff},
		{name: "features far beyond", off: spec.DeviceFeature, want: 0},
		{"offered features are read-only", spec.DeviceFeature, 4, 7, 0},
		{"accept low", spec.DriverFeature, 4, 0x80000021, 0x80000021},
		{"select high", spec.DriverFeatureSelect, 4, 1, 1},
		{name: "nothing accepted there", off: spec.DriverFeature, want: 0},
		{"accept high", spec.DriverFeature, 4, 1, 1},
		{"select beyond", spec.DriverFeatureSelect, 4, 2, 2},
		{"accept beyond", spec.DriverFeature, 4, 1, 0},
		{"select low", spec.DriverFeatureSelect, 4, 0, 0},
		{name: "low is still there", off: spec.DriverFeature, want: 0x80000021},

		// Vectors.
		{"last vector", spec.ConfigMSIXVector, 2, vectors - 1, vectors - 1},
		{"vector beyond", spec.ConfigMSIXVector, 2, vectors, spec.NoVector},
		{"first vector", spec.ConfigMSIXVector, 2, 0, 0},
		{"no vector", spec.ConfigMSIXVector, 2, spec.NoVector, spec.NoVector},
		{"queue vector", spec.QueueMSIXVector, 2, 3, 3},
		{"queue vector beyond", spec.QueueMSIXVector, 2, 0x7ff, spec.NoVector},

		// What a driver must not write.
		{"number of queues", spec.NumQueues, 2, 9, 3},
		{"notify offset", spec.QueueNotifyOff, 2, 9, 0},
		{"notification data", spec.QueueNotifConfigData, 2, 9, 0},
		{"queue reset that is not negotiated", spec.QueueReset, 2, 1, 0},
		{"enabled before features are", spec.QueueEnable, 2, 1, 0},

		// Sizes.
		{"smaller", spec.QueueSize, 2, 8, 8},
		{"none", spec.QueueSize, 2, 0, 8},
		{"no power of two", spec.QueueSize, 2, 12, 8},
		{"too large", spec.QueueSize, 2, 2 * maxSize, 8},
		{"largest", spec.QueueSize, 2, maxSize, maxSize},
		{"one", spec.QueueSize, 2, 1, 1},

		// Addresses, whole and in halves in either order.
		{"address", spec.QueueDesc, 8, 0x1122334455667788, 0x1122334455667788},
		{"low half", spec.QueueDesc, 4, 0xaaaaaaaa, 0x11223344aaaaaaaa},
		{"high half", spec.QueueDesc + 4, 4, 0xbbbbbbbb, 0xbbbbbbbbaaaaaaaa},
		{"high half first", spec.QueueDriver + 4, 4, 0xcccccccc, 0xcccccccc00000000},
		{"then low", spec.QueueDriver, 4, 0xdddddddd, 0xccccccccdddddddd},
		{"device area", spec.QueueDevice, 8, 42, 42},

		// Widths that are not the field's.
		{"address by 2 bytes", spec.QueueDesc, 2, 0, 0xbbbbbbbbaaaaaaaa},
		{"address by 1 byte", spec.QueueDesc + 4, 1, 0, 0xbbbbbbbbaaaaaaaa},
		{"8 bytes across two addresses", spec.QueueDesc + 4, 8, 0, 0xbbbbbbbbaaaaaaaa},
		{"vector by 4 bytes", spec.ConfigMSIXVector, 4, 1, spec.NoVector},
		{"vector by 1 byte", spec.ConfigMSIXVector, 1, 1, spec.NoVector},
		{"size by 4 bytes", spec.QueueSize, 4, 8, 1},
		{"size by 1 byte", spec.QueueSize, 1, 8, 1},
		{"status by 4 bytes", spec.DeviceStatus, 4, 1, 0},
		{"status by 2 bytes", spec.DeviceStatus, 2, 1, 0},
		{"select by 1 byte", spec.QueueSelect, 1, 1, 0},
		{"features by 2 bytes", spec.DriverFeature, 2, 0, 0x80000021},
		{"features by 8 bytes", spec.DriverFeature, 8, 0, 0x80000021},

		// Another queue has its own.
		{"second queue", spec.QueueSelect, 2, 1, 1},
		{name: "its size", off: spec.QueueSize, want: maxSize},
		{name: "its vector", off: spec.QueueMSIXVector, want: spec.NoVector},
		{name: "its notify offset", off: spec.QueueNotifyOff, want: 1},
		{name: "its address", off: spec.QueueDesc, want: 0},

		// A queue that is not there reads 0 and takes nothing.
		{"no queue", spec.QueueSelect, 2, 3, 3},
		{"size of none", spec.QueueSize, 2, 8, 0},
		{"vector of none", spec.QueueMSIXVector, 2, 1, spec.NoVector},
		{"address of none", spec.QueueDevice, 8, 1, 0},
		{name: "notify offset of none", off: spec.QueueNotifyOff, want: 0},
		{"the last number", spec.QueueSelect, 2, 0xffff, 0xffff},
		{name: "size of that", off: spec.QueueSize, want: 0},
		{"first queue again", spec.QueueSelect, 2, 0, 0},
		{name: "its size", off: spec.QueueSize, want: 1},
		{name: "its address", off: spec.QueueDevice, want: 42},
	})
	// Reads of any width give the bytes that are there.
	if got := g.read(spec.CapCommon, spec.NumQueues, 4); got != 3 {
		t.Errorf("%#x across fields", got)
	}
	if got := g.read(spec.CapCommon, spec.QueueDesc+7, 1); got != 0xbb {
		t.Errorf("%#x in the last byte of an address", got)
	}
	for _, off := range []int{spec.AdminQueueIndex, spec.AdminQueueNum, spec.CommonSize, 0xffe} {
		g.write(spec.CapCommon, off, 2, 0xffff)
		if got := g.read(spec.CapCommon, off, 2); got != 0 {
			t.Errorf("%#x at %#x, where there is nothing", got, off)
		}
	}
}

func TestFieldsOfNegotiatedFeatures(t *testing.T) {
	holdings.CheckLeaks(t)
	g := newLab(t, virtio.Config{Queues: 3}).attach(t)
	g.negotiate(plainFeatures | spec.FeatureNotifConfigData | spec.FeatureRingPacked)
	g.check([]access{
		{"queue 2", spec.QueueSelect, 2, 2, 2},
		{name: "notification data", off: spec.QueueNotifConfigData, want: 2},
		{"read-only", spec.QueueNotifConfigData, 2, 1, 2},
		{"a packed ring has any size", spec.QueueSize, 2, 7, 7},
		{"but not none", spec.QueueSize, 2, 0, 7},
		{"nor more than there are", spec.QueueSize, 2, maxSize + 1, 7},
		{"features are frozen", spec.DriverFeature, 4, 0xff, (plainFeatures | spec.FeatureNotifConfigData | spec.FeatureRingPacked) >> 32},
	})
	g.negotiate(plainFeatures)
	g.check([]access{
		{"queue 2", spec.QueueSelect, 2, 2, 2},
		{name: "no notification data", off: spec.QueueNotifConfigData, want: 0},
		{"a split ring is a power of two", spec.QueueSize, 2, 7, maxSize},
	})
	// An enabled queue keeps what it was enabled with, but for its vector.
	g.newRing(2, 16, 1)
	desc := g.get(spec.QueueDesc)
	g.check([]access{
		{"size", spec.QueueSize, 2, 8, 16},
		{"address", spec.QueueDesc, 8, 0x1000, desc},
		{"vector", spec.QueueMSIXVector, 2, 2, 2},
		{"disable", spec.QueueEnable, 2, 0, 1},
		{"disable by a wrong value", spec.QueueEnable, 2, 2, 1},
		{"another queue", spec.QueueSelect, 2, 1, 1},
		{"enable by a wrong value", spec.QueueEnable, 2, 3, 0},
	})
}
