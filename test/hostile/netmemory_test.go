package hostile

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/virtio"
	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
)

// Where an attacker has memory that is truncated or unmapped, beside that of its rings.
const (
	looseBase = 4 << 40
	looseSize = 1 << 20
)

// loose maps such memory.
func (g *netRig) loose() *ram {
	g.a.Helper()
	m := g.a.newRAM(looseSize)
	g.call(codec.CmdDMAMap, mapping(looseBase, looseSize, 0, readWrite), m.fd)
	return m
}

// looseFrames fills half of the transmit queue with frames in that memory, behind the
// buffers: what is received is not sent.
func (g *netRig) looseFrames() {
	g.a.Helper()
	q := g.rings[txQueue]
	for range q.size / 2 {
		q.put(buf{looseBase + looseSize - pageSize, 1000, 0})
	}
}

// looseBuffers fills the receive queue with buffers there.
func (g *netRig) looseBuffers() {
	g.a.Helper()
	q := g.rings[rxQueue]
	for i := range uint64(q.size) {
		q.put(buf{looseBase + i*2048, 2048, ring.DescWrite})
	}
	q.kick()
}

// poke has all queues looked at, in a session that may have ended.
func (g *netRig) poke() {
	for i := range g.queues() {
		b := access(0, netNotify+4*uint64(i), binary.LittleEndian.AppendUint16(nil, uint16(i)))
		_ = g.send(g.message(codec.CmdRegionWrite, codec.FlagNoReply, b))
	}
}

// A client makes its memory shorter while the card uses it, be it for its own frames or for
// those that others send to it. That costs it its session, and nobody else anything.
func TestVirtioNetTruncatedMemory(t *testing.T) {
	forNetModes(t, func(t *testing.T, l *netLab) {
		for _, layout := range layouts {
			for _, c := range []struct {
				name string
				run  func(g *netRig, m *ram)
			}{
				{"data to be sent", func(g *netRig, m *ram) {
					g.looseFrames()
					m.truncate(0)
					g.looseFrames() // the others may have been sent by now
				}},
				{"data to be sent, behind a header that is there", func(g *netRig, m *ram) {
					m.truncate(pageSize)
					g.rings[txQueue].put(buf{looseBase + pageSize - 20, 4000, 0})
				}},
				{"receive buffers", func(g *netRig, m *ram) {
					g.looseBuffers()
					m.truncate(0)
				}},
				{"receive buffers, from their second page on", func(g *netRig, m *ram) {
					q := g.rings[rxQueue]
					for range q.size / 4 { // a header and a part of a frame fit
						q.put(buf{looseBase + pageSize - 12 - 16, 40, ring.DescWrite}, buf{looseBase + pageSize, 8000, ring.DescWrite})
					}
					q.kick()
					m.truncate(pageSize)
				}},
				{"a table", func(g *netRig, m *ram) {
					m.truncate(0)
					g.rings[txQueue].put(buf{looseBase, 1024, ring.DescIndirect})
				}},
				{"a command", func(g *netRig, m *ram) {
					m.truncate(0)
					g.control().put(buf{looseBase, 3, 0}, buf{ramBase + g.data, 1, ring.DescWrite})
				}},
				{"the answer to a command", func(g *netRig, m *ram) {
					m.truncate(0)
					g.control().put(buf{ramBase + g.data, 3, 0}, buf{looseBase, 1, ring.DescWrite})
				}},
				{"commands, while they are served", func(g *netRig, m *ram) {
					q := g.control()
					for range 100 {
						q.put(buf{looseBase, 60, 0}, buf{looseBase + pageSize, 1, ring.DescWrite})
					}
					q.kick()
					q.until(1)
					m.truncate(0)
					q.put(buf{looseBase, 60, 0}, buf{looseBase + pageSize, 1, ring.DescWrite})
				}},
				{"rings of a sender", func(g *netRig, _ *ram) {
					g.looseFrames()
					g.rings[txQueue].kick()
					g.ram.truncate(g.rings[txQueue].desc)
				}},
				{"all rings", func(g *netRig, _ *ram) {
					g.looseFrames()
					g.looseBuffers()
					g.ram.truncate(g.data + dataSize)
				}},
				{"rings of a receiver that is starved", func(g *netRig, _ *ram) {
					mark := l.healthy.done.Load()
					for l.healthy.done.Load() < mark+4 && l.healthy.err() == nil {
						time.Sleep(pace) // polls
					}
					g.ram.truncate(g.data + dataSize)
				}},
				{"all of it, a page after the other", func(g *netRig, m *ram) {
					g.looseFrames()
					g.looseBuffers()
					g.poke()
					for size := g.ram.used; size > 0; size -= min(size, 8*pageSize) {
						m.truncate(min(size, looseSize))
						g.ram.truncate(size)
						g.poke()
					}
					g.ram.truncate(0)
				}},
			} {
				l.attack(t, layout.name+", "+c.name, func(a *attack) {
					g := a.netStarted(layout.features|netFeatures, 256)
					c.run(g, g.loose())
					g.poke()
					g.ended()
				})
			}
			l.attack(t, layout.name+", again and again", func(a *attack) {
				for range 10 {
					g := a.netStarted(layout.features|netFeatures, 256)
					m := g.loose()
					g.looseFrames()
					g.looseBuffers()
					g.poke()
					for range 10 {
						m.truncate(0)
						m.truncate(looseSize)
						g.ram.truncate(g.data + dataSize)
						g.ram.truncate(g.ram.size)
					}
					g.poke()
					g.close()
				}
			})
		}
	})
}

// Memory goes in the way that it should, and comes back, while frames are in it.
func TestVirtioNetUnmappedMemory(t *testing.T) {
	forNetModes(t, func(t *testing.T, l *netLab) {
		for _, layout := range layouts {
			l.attack(t, layout.name+", of rings", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				for range 100 {
					g.poke()
					g.call(codec.CmdDMAUnmap, unmapping(ramBase, g.ram.size))
					g.poke()
					g.call(codec.CmdDMAMap, mapping(ramBase, g.ram.size, 0, readWrite), g.ram.fd)
					g.rings[txQueue].put(g.frame(foreign(300)))
					g.rings[rxQueue].put(buf{ramBase + g.data + dataSize/2, 2048, ring.DescWrite})
				}
				g.poke()
				g.rings[txQueue].until(100) // it goes on where it was
				g.works()
			})
			l.attack(t, layout.name+", of rings, for another file", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				other := a.newRAM(g.ram.size)
				for range 20 {
					for _, m := range []*ram{other, g.ram} {
						g.poke()
						g.call(codec.CmdDMAUnmap, unmapping(ramBase, g.ram.size))
						g.call(codec.CmdDMAMap, mapping(ramBase, g.ram.size, 0, readWrite), m.fd)
					}
				}
				g.reset()
				g.works()
			})
			l.attack(t, layout.name+", of data to be sent", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				g.loose()
				g.looseFrames()
				g.rings[txQueue].kick()
				g.call(codec.CmdDMAUnmap, unmapping(looseBase, looseSize))
				g.looseFrames()
				g.rings[txQueue].kick()
				g.broken()
				g.works()
			})
			l.attack(t, layout.name+", of receive buffers", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				g.loose()
				g.looseBuffers()
				g.call(codec.CmdDMAUnmap, unmapping(looseBase, looseSize))
				g.broken() // by a frame of somebody else
				g.works()
			})
			l.attack(t, layout.name+", and it is read-only where it is written", func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				g.mapOthers()
				for _, at := range []uint64{readOnlyBase, readOnlyBase + 4000} {
					g.rings[rxQueue].put(buf{at, 2048, ring.DescWrite})
				}
				g.rings[rxQueue].kick()
				g.broken()
				g.works()
				g.control().put(buf{ramBase + g.data, 3, 0}, buf{readOnlyBase, 1, ring.DescWrite})
				g.control().kick()
				g.broken()
				g.works()
				g.rings[txQueue].put(buf{writeOnlyBase, 100, 0})
				g.rings[txQueue].kick()
				g.broken()
				g.works()
			})
		}
	})
}

// flipping is for how long descriptors are changed under the card.
const flipping = 150 * time.Millisecond

// What the card reads changes while it does, between two looks and between two frames.
func TestVirtioNetFlips(t *testing.T) {
	l := newNetLab(t, virtionet.Config{Doorbells: virtio.Mmap})
	for _, layout := range layouts {
		for _, c := range []struct {
			name string
			// what gives two things that stand at an offset in turn.
			what func(g *netRig) (off uint64, one, other []byte)
		}{
			{"the address of a descriptor", func(g *netRig) (uint64, []byte, []byte) {
				return g.rings[txQueue].desc, le64(ramBase + g.data), le64(nowhere)
			}},
			{"the length of a descriptor", func(g *netRig) (uint64, []byte, []byte) {
				return g.rings[txQueue].desc + 8, []byte{200, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0xff}
			}},
			{"the flags of a descriptor", func(g *netRig) (uint64, []byte, []byte) {
				at := g.rings[txQueue].desc + 12
				if g.rings[txQueue].packed() {
					at += 2
				}
				return at, []byte{ring.DescAvail}, []byte{ring.DescNext | ring.DescIndirect | ring.DescAvail}
			}},
			{"an indirect table", func(g *netRig) (uint64, []byte, []byte) {
				return g.data + 2*pageSize, slices.Concat(le64(ramBase+g.data), []byte{200, 0, 0, 0}), slices.Concat(le64(nowhere), []byte{0, 0, 0, 0x80})
			}},
			{"the header of a frame", func(g *netRig) (uint64, []byte, []byte) {
				return g.data, make([]byte, 10), []byte{1, 1, 0xff, 0xff, 1, 0, 34, 0, 16, 0}
			}},
			{"the length in a frame", func(g *netRig) (uint64, []byte, []byte) {
				return g.data + uint64(g.header()) + 14, []byte{0x45, 0, 0, 186}, []byte{0x4f, 0, 0xff, 0xff}
			}},
			{"the addresses of a frame", func(g *netRig) (uint64, []byte, []byte) {
				return g.data + uint64(g.header()), broadcastMAC[:], []byte{2, 0, 0, 0, 0, 3}
			}},
			{"the available ring", func(g *netRig) (uint64, []byte, []byte) {
				return g.rings[txQueue].driver + ring.AvailRing, []byte{0, 0}, []byte{0xff, 0xff}
			}},
			{"the used ring", func(g *netRig) (uint64, []byte, []byte) {
				return g.rings[txQueue].device, make([]byte, 64), slices.Repeat([]byte{0xff}, 64)
			}},
		} {
			l.attack(t, layout.name+", "+c.name, func(a *attack) {
				defer l.neighbours.underFlood()()
				g := a.netStarted(layout.features|netFeatures, 64)
				off, one, other := c.what(g)
				stop, stopped := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stopped)
					for {
						select {
						case <-stop:
							return
						default:
							_, _ = unix.Pwrite(g.ram.fd, one, int64(off))
							_, _ = unix.Pwrite(g.ram.fd, other, int64(off))
						}
					}
				}()
				for begin := time.Now(); time.Since(begin) < flipping; {
					g.flipped()
				}
				close(stop)
				<-stopped
				g.reset()
				g.works()
			})
		}
	}
}

// flipped sends, without a look at what the ring holds meanwhile, frames in the ring and in
// a table, all the same, and begins anew if that has broken the card.
func (g *netRig) flipped() {
	g.a.Helper()
	if g.readStatus().Has(ring.StatusNeedsReset) {
		g.reset()
		g.ram.used = g.data + dataSize
		g.start(g.features, 64)
	}
	g.receives(32)
	q := g.rings[txQueue]
	h := make([]byte, g.header())
	h[0], h[1] = 1, 1 // a segment
	binary.LittleEndian.PutUint16(h[4:], 50)
	binary.LittleEndian.PutUint16(h[6:], 34)
	binary.LittleEndian.PutUint16(h[8:], 16)
	d := g.frameAt(g.data, h, tcpFrame(4, 6, 200))
	t := q.table(g.data+2*pageSize, d, buf{ramBase + g.data + pageSize, 100, 0})
	for range q.size / 4 {
		q.put(d)
		q.put(t)
	}
	q.kick()
	for begin := time.Now(); q.used() == 0 && time.Since(begin) < 5*time.Millisecond; {
		g.alive()
	}
}

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
