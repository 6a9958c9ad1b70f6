package hostile

import (
	"encoding/binary"
	"testing"
	"time"

	"vfiouser/codec"
	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/engine"
)

// busy keeps the card sending and receiving: both rings are full, and what they hold goes
// round without being looked at. A split ring's index is ahead by all that there is.
func (g *netRig) busy() {
	g.a.Helper()
	g.receives(int(g.rings[rxQueue].size))
	q := g.rings[txQueue]
	d := g.frame(foreign(200))
	for range q.size {
		q.put(d)
	}
	q.kick()
}

// Registers, while frames come and go.
func TestVirtioNetRegisters(t *testing.T) {
	forNetModes(t, func(t *testing.T, l *netLab) {
		for _, layout := range layouts {
			l.attack(t, layout.name+", every offset of BAR0, random values", func(a *attack) {
				r := a.random()
				defer l.neighbours.underFlood()()
				g := a.netStarted(layout.features|netFeatures, 256)
				g.busy()
				for off := range uint64(netBAR) {
					if off%0x1000 > 0x100 && off%7 != 0 {
						continue
					}
					data := make([]byte, []int{1, 2, 4, 8}[r.IntN(4)])
					garbage(r, data)
					g.post(codec.CmdRegionWrite, access(0, off, data))
				}
				g.reset()
				g.works()
			})
			l.attack(t, layout.name+", random ones that make sense", func(a *attack) {
				defer l.neighbours.underFlood()()
				r := a.random()
				g := a.netStarted(layout.features|netFeatures, 256)
				registers := []struct {
					off  uint64
					size int
				}{
					{ring.DriverFeatureSelect, 4}, {ring.DriverFeature, 4}, {ring.ConfigMSIXVector, 2}, {ring.DeviceStatus, 1}, {ring.QueueSelect, 2},
					{ring.QueueSize, 2}, {ring.QueueMSIXVector, 2}, {ring.QueueEnable, 2}, {ring.QueueReset, 2},
					{ring.QueueDesc, 8}, {ring.QueueDriver, 8}, {ring.QueueDevice, 8},
				}
				for range 15 {
					g.busy()
					for range 100 {
						reg := registers[r.IntN(len(registers))]
						v := r.Uint64N(6)
						switch r.IntN(6) {
						case 0:
							v = r.Uint64()
						case 1:
							v = ramBase + r.Uint64N(16<<20)&^0xfff
						case 2:
							v = uint64(ring.StatusAcknowledge | ring.StatusDriver | ring.StatusFeaturesOK | ring.StatusDriverOK)
						}
						g.set(reg.off, reg.size, v)
					}
					g.reset()
					g.ram.used = g.data + dataSize
					g.start(layout.features|netFeatures, 256)
				}
				g.works()
			})
			l.attack(t, layout.name+", every status", func(a *attack) {
				defer l.neighbours.underFlood()()
				g := a.netStarted(layout.features|netFeatures, 256)
				for s := range 256 {
					if s%16 == 1 {
						g.busy()
					}
					g.status(ring.Status(s))
					g.status(ring.Status(s >> 1))
					if s%16 == 0 {
						g.reset()
						g.ram.used = g.data + dataSize
						g.start(layout.features|netFeatures, 256)
					}
				}
				g.reset()
				g.works()
			})
			l.attack(t, layout.name+", resets of the card", func(a *attack) {
				defer l.neighbours.underFlood()()
				g := a.netStarted(layout.features|netFeatures, 256)
				for range 30 {
					g.busy()
					g.status(0)
					// Without waiting until it is done.
					g.ram.used = g.data + dataSize
					g.features = layout.features | netFeatures
					g.status(ring.StatusAcknowledge | ring.StatusDriver)
					for word := range uint64(2) {
						g.set(ring.DriverFeatureSelect, 4, word)
						g.set(ring.DriverFeature, 4, g.features>>(32*word)&(1<<32-1))
					}
					g.status(ring.StatusAcknowledge | ring.StatusDriver | ring.StatusFeaturesOK)
					for i := range g.queues() {
						g.ring(i, 256).enable()
					}
					g.drive()
				}
				g.alive()
				g.reset()
				g.works()
			})
			l.attack(t, layout.name+", resets of queues", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				r := a.random()
				for range 800 {
					q := g.rings[r.IntN(g.queues())]
					g.set(ring.QueueSelect, 2, uint64(q.index))
					g.set(ring.QueueReset, 2, 1)
					if r.IntN(2) == 0 {
						g.set(ring.QueueEnable, 2, 1) // too early, or not
					}
					if r.IntN(50) == 0 {
						g.rings[txQueue].put(g.frame(foreign(100)))
						g.rings[txQueue].kick()
					}
				}
				g.reset()
				g.works()
			})
			l.attack(t, layout.name+", the configuration space", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				r := a.random()
				g.busy()
				for range 2_000 {
					data := make([]byte, 1<<r.IntN(4))
					garbage(r, data)
					g.post(codec.CmdRegionWrite, access(engine.RegionConfig, r.Uint64N(256), data))
				}
				g.alive()
			})
		}
	})
}

// A client vanishes after each step that it takes.
func TestVirtioNetVanish(t *testing.T) {
	l := newNetLab(t, virtionet.Config{})
	for _, layout := range layouts {
		features := layout.features | netFeatures
		type step struct {
			name string
			do   func(g *netRig)
		}
		steps := []step{
			{"memory", func(*netRig) {}},
			{"features", func(g *netRig) { g.agree(features) }},
			{"queues", func(g *netRig) {
				for i := range g.queues() {
					g.ring(i, 256)
				}
			}},
			{"enabled queues", func(g *netRig) {
				for i := range g.queues() {
					g.rings[i].enable()
				}
			}},
			{"DRIVER_OK", (*netRig).drive},
			{"buffers", func(g *netRig) { g.receives(200) }},
			{"a frame", func(g *netRig) { q := g.rings[txQueue]; q.put(g.frame(foreign(100))); q.kick() }},
			{"many frames", (*netRig).busy},
			{"a command", func(g *netRig) {
				q := g.control()
				q.put(buf{ramBase + g.data, 3, 0}, buf{ramBase + g.data, 1, ring.DescWrite})
				q.kick()
			}},
			{"a queue that is reset", func(g *netRig) {
				g.set(ring.QueueSelect, 2, rxQueue)
				g.set(ring.QueueReset, 2, 1)
			}},
			{"memory that is to go", func(g *netRig) { g.must(g.message(codec.CmdDMAUnmap, 0, unmapping(ramBase, g.ram.size))) }},
			{"a reset", func(g *netRig) { g.status(0) }},
		}
		for last, s := range steps {
			l.attack(t, layout.name+", after "+s.name, func(a *attack) {
				for range 3 {
					g := a.newNetRig(4 << 20)
					for _, s := range steps[:last+1] {
						s.do(g)
					}
					g.close()
				}
			})
		}
	}
}

// Notifications, far too many of them or such as say something else than is true.
func TestVirtioNetKicks(t *testing.T) {
	forNetModes(t, func(t *testing.T, l *netLab) {
		for _, layout := range layouts {
			l.attack(t, layout.name+", a flood", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				g.busy()
				var all []byte
				for i := 0; len(all) < 60<<10; i++ {
					index := uint16(i % 5)
					all = append(all, g.message(codec.CmdRegionWrite, codec.FlagNoReply,
						access(0, netNotify+4*uint64(index), binary.LittleEndian.AppendUint16(nil, index)))...)
				}
				for begin := time.Now(); time.Since(begin) < 300*time.Millisecond; {
					g.must(all)
				}
				g.alive()
			})
			l.attack(t, layout.name+", data that lies", func(a *attack) {
				r := a.random()
				g := a.netStarted(layout.features|netFeatures|ring.FeatureNotificationData, 256)
				g.busy()
				for range 3_000 {
					data := make([]byte, []int{1, 2, 4, 8}[r.IntN(4)])
					garbage(r, data)
					g.post(codec.CmdRegionWrite, access(0, netNotify+r.Uint64N(24), data))
				}
				g.alive()
				g.reset()
				g.works()
			})
			l.attack(t, layout.name+", of queues that are not there", func(a *attack) {
				g := a.newNetRig(16 << 20)
				for off := range uint64(0x1000 / 4) {
					g.post(codec.CmdRegionWrite, access(0, netNotify+4*off, []byte{byte(off), 0}))
				}
				g.start(layout.features, 64)
				for off := range uint64(0x1000 / 4) {
					g.post(codec.CmdRegionWrite, access(0, netNotify+4*off, []byte{byte(off), 0}))
				}
				g.works()
			})
		}
	})
}
