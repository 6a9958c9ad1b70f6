package hostile

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"vfiouser/codec"
	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/irq"
)

// Cards that do on a switch what a card may do, but not so much of it.
func TestVirtioNetSwitch(t *testing.T) {
	forNetModes(t, func(t *testing.T, l *netLab) {
		for _, layout := range layouts {
			flood := func(name string, frame func(i uint64) []byte) {
				t.Helper()
				l.attack(t, layout.name+", "+name, func(a *attack) {
					defer l.neighbours.underFlood()()
					g := a.netStarted(layout.features|netFeatures, 256)
					q := g.rings[txQueue]
					i := uint64(0)
					for begin := time.Now(); time.Since(begin) < 80*time.Millisecond; {
						for k := range uint64(128) {
							q.put(g.frameAt(g.data+k*2048, make([]byte, g.header()), frame(i)))
							i++
						}
						q.kick()
						q.until(128)
					}
				})
			}
			flood("broadcasts", func(uint64) []byte { return foreign(1000) })
			flood("source addresses", func(i uint64) []byte {
				f := foreign(60)
				binary.BigEndian.PutUint32(f[7:], uint32(i*0x9e3779b1))
				return f
			})
			flood("destinations that nobody has", func(i uint64) []byte {
				f := foreign(60)
				binary.LittleEndian.PutUint64(f, i*0x9e3779b97f4a7c15&^1)
				copy(f[6:], victimMAC[:])
				return f
			})
			flood("the addresses of the others", func(i uint64) []byte {
				f := foreign(60)
				copy(f[6:], l.neighbours.macs[1+i%2][:])
				return f
			})
			flood("sources that are groups, or nobody", func(i uint64) []byte {
				f := foreign(60)
				copy(f[6:], broadcastMAC[:])
				if i%2 == 0 {
					clear(f[6:12])
				}
				return f
			})
			// Only its own frames are lost.
			l.attack(t, layout.name+", a card that takes nothing", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				q := g.rings[txQueue]
				q.put(g.frame(foreign(60))) // the switch knows where it is
				q.kick()
				q.until(1)
				for mark := l.healthy.done.Load(); l.healthy.done.Load() < mark+200 && l.healthy.err() == nil; {
					g.alive()
					time.Sleep(pace) // polls
				}
			})
			l.attack(t, layout.name+", a card that takes one frame now and then", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				for range 20 {
					g.receives(1)
					g.rings[rxQueue].until(1)
				}
			})
		}
	})
}

// The client makes its eventfds blocking and fills them: who raises an interrupt, be it for
// frames of another card, must not wait.
func TestVirtioNetBlockedEventfds(t *testing.T) {
	forNetModes(t, func(t *testing.T, l *netLab) {
		for _, layout := range layouts {
			for vector, name := range []string{"the configuration", "receive", "transmit", "commands"} {
				for _, index := range []irq.Index{irq.MSIX, irq.INTx} {
					l.attack(t, fmt.Sprintf("%s, %v, of %s", layout.name, index, name), func(a *attack) {
						g := a.netStarted(layout.features|netFeatures, 256)
						fd := a.eventfd()
						at := vector
						switch {
						case index == irq.INTx:
							at = 0
						case name == "commands":
							at = g.queues()
						case vector == 0:
							g.set(ring.ConfigMSIXVector, 2, 0)
						}
						g.call(codec.CmdSetIRQs, setIRQs(assign, index, uint32(at), 1), fd)
						a.block(fd)
						switch name {
						case "the configuration": // the card needs a reset
							g.rings[txQueue].put(buf{nowhere, 100, 0})
						case "receive":
							g.receives(200)
						case "transmit":
							g.rings[txQueue].put(g.frame(foreign(100)))
						case "commands":
							g.control().put(buf{ramBase + g.data, 3, 0}, buf{ramBase + g.data + pageSize, 1, ring.DescWrite})
						}
						g.poke()
						g.ended()
					})
				}
			}
		}
	})
}

// Memory that the client has to be asked for, and what it may answer.
func TestVirtioNetMessages(t *testing.T) {
	l := newImpatientNetLab(t, virtionet.Config{}, impatience)
	for _, layout := range layouts {
		for _, c := range []struct {
			name  string
			data  bool // only what is to be sent or received is asked for
			wrong func(g *netRig, h codec.Header, payload []byte)
			lost  bool // it costs the session
		}{
			{"rings, never answered", false, func(*netRig, codec.Header, []byte) {}, true},
			{"data, never answered", true, func(*netRig, codec.Header, []byte) {}, true},
			{"rings, refused", false, func(g *netRig, h codec.Header, _ []byte) { _ = g.respond(h, codec.FlagError, 14, nil) }, false},
			{"data, refused", true, func(g *netRig, h codec.Header, _ []byte) { _ = g.respond(h, codec.FlagError, 14, nil) }, false},
			{"rings, without data", false, func(g *netRig, h codec.Header, _ []byte) { _ = g.respond(h, 0, 0, nil) }, true},
		} {
			l.attack(t, layout.name+", "+c.name, func(a *attack) {
				g := &netRig{raw: a.session(), ram: a.newRAM(16 << 20)}
				honest := &rig{raw: g.raw, ram: g.ram}
				g.serve = honest.answer
				g.call(codec.CmdDMAMap, mapping(ramBase, g.ram.size, 0, readWrite))
				g.data = g.ram.alloc(dataSize)
				g.start(layout.features|netFeatures, 64)
				g.receives(32)
				g.rings[txQueue].put(g.frame(foreign(100)))
				g.rings[txQueue].kick()
				g.rings[txQueue].until(1)
				g.serve = func(h codec.Header, payload []byte) {
					if at := binary.LittleEndian.Uint64(payload); c.data && (at < ramBase+g.data || at >= ramBase+g.data+dataSize) {
						honest.answer(h, payload)
						return
					}
					c.wrong(g, h, payload)
				}
				g.rings[txQueue].put(g.frame(foreign(100)))
				g.control().put(buf{ramBase + g.data, 3, 0}, buf{ramBase + g.data + pageSize, 1, ring.DescWrite})
				g.poke()
				if c.lost {
					for {
						if _, _, err := g.reply(); err != nil {
							g.in = nil
							break
						}
					}
					g.ended()
					return
				}
				g.broken()
			})
		}
	}
}
