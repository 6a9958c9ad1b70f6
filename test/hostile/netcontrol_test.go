package hostile

import (
	"encoding/binary"
	"slices"
	"testing"

	virtionet "vfiouser/devices/virtio-net"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
)

// noAck is what stands where an answer goes before there is one.
const noAck = 0xaa

// command sends a command, all of it in one buffer, and returns the answer.
func (g *netRig) command(b []byte) (ack byte) {
	g.a.Helper()
	g.ram.write(g.data, b)
	return g.commandIn(buf{ramBase + g.data, uint32(len(b)), 0})
}

// commandIn sends a command that is in the buffers given.
func (g *netRig) commandIn(list ...buf) (ack byte) {
	g.a.Helper()
	answer := g.data + dataSize/2 - pageSize // before the receive buffers
	g.ram.write(answer, []byte{noAck})
	q := g.control()
	q.put(append(list, buf{ramBase + answer, 1, ring.DescWrite})...)
	q.kick()
	q.until(1)
	var b [1]byte
	g.ram.read(answer, b[:])
	return b[0]
}

// commandsOf are good commands with all their data.
func commandsOf() [][]byte {
	macs := spec.MACTable{Unicast: [][6]byte{victimMAC, {2, 1}}, Multicast: [][6]byte{{1, 2}}}
	rss := spec.RSSConfig{HashTypes: spec.HashAll, Table: []uint16{0, 1, 1, 0}, MaxTx: 2, Key: make([]byte, spec.KeySize)}
	hash := spec.HashConfig{HashTypes: spec.HashAll, Key: make([]byte, spec.KeySize)}
	list := [][]byte{
		append([]byte{spec.ClassMAC, spec.MACAddrSet}, victimMAC[:]...),
		macs.Append([]byte{spec.ClassMAC, spec.MACTableSet}),
		{spec.ClassVLAN, spec.VLANAdd, 5, 0},
		{spec.ClassVLAN, spec.VLANDel, 5, 0},
		{spec.ClassAnnounce, spec.AnnounceAck},
		{spec.ClassMQ, spec.MQPairsSet, 2, 0},
		rss.Append([]byte{spec.ClassMQ, spec.MQRSSConfig}),
		hash.Append([]byte{spec.ClassMQ, spec.MQHashConfig}),
		append([]byte{spec.ClassGuestOffloads, spec.GuestOffloadsSet}, make([]byte, 8)...),
		append([]byte{spec.ClassNotfCoal, spec.CoalTxSet}, make([]byte, spec.CoalesceSize)...),
		append([]byte{spec.ClassNotfCoal, spec.CoalRxSet}, make([]byte, spec.CoalesceSize)...),
		append([]byte{spec.ClassNotfCoal, spec.CoalVQSet}, make([]byte, spec.CoalesceVQSize)...),
	}
	for mode := spec.RxPromisc; mode <= spec.RxNoBcast; mode++ {
		list = append(list, []byte{spec.ClassRx, mode, 1})
	}
	return list
}

// Commands that a driver must not send, and their data.
func TestVirtioNetCommands(t *testing.T) {
	l := newNetLab(t, virtionet.Config{})
	for _, layout := range layouts {
		each := func(name string, run func(a *attack, g *netRig)) {
			t.Helper()
			l.attack(t, layout.name+", "+name, func(a *attack) {
				g := a.netStarted(layout.features|netFeatures, 256)
				g.receives(64)
				run(a, g)
				g.works()
			})
		}
		each("cut short", func(a *attack, g *netRig) {
			for _, c := range commandsOf() {
				if ack := g.command(c); ack != spec.AckOK {
					a.Errorf("%d: %d", c[:2], ack)
				}
				for n := range len(c) {
					if ack := g.command(c[:n]); ack != spec.AckErr {
						a.Errorf("%d, %d of %d bytes: %d", c[:min(n, 2)], n, len(c), ack)
					}
				}
			}
		})
		each("of another size or class", func(a *attack, g *netRig) {
			for class := range 10 {
				for number := range 10 {
					for _, n := range []int{0, 1, 2, 3, 6, 8, 9, 12, 13, 60, 4000} {
						g.command(append([]byte{byte(class), byte(number)}, make([]byte, n)...))
					}
				}
			}
			for _, c := range [][]byte{{255, 255}, {255, 0, 1}, {0, 255, 1}, {5, 128}} {
				if ack := g.command(c); ack != spec.AckErr {
					a.Errorf("%d: %d", c, ack)
				}
			}
		})
		each("in pieces of a byte", func(a *attack, g *netRig) {
			for _, c := range commandsOf() {
				g.ram.write(g.data, c)
				var list []buf
				for i := range c {
					list = append(list, buf{ramBase + g.data + uint64(i), 1, 0})
				}
				if ack := g.commandIn(list...); ack != spec.AckOK {
					a.Errorf("%d: %d", c[:2], ack)
				}
			}
		})
		each("without room for an answer", func(_ *attack, g *netRig) {
			for _, c := range commandsOf() {
				g.ram.write(g.data, c)
				q := g.control()
				q.put(buf{ramBase + g.data, uint32(len(c)), 0})
				q.kick()
				q.until(1)
			}
		})
		each("with room for nothing else", func(_ *attack, g *netRig) {
			q := g.control()
			for range 300 {
				q.put(buf{ramBase + g.data, 1 << 19, ring.DescWrite})
				q.kick()
				q.until(1)
			}
		})
		each("larger than any", func(a *attack, g *netRig) {
			if ack := g.commandIn(buf{ramBase + g.data, 1<<20 - 8, 0}); ack != spec.AckErr {
				a.Errorf("%d", ack)
			}
			q := g.control()
			q.put(buf{ramBase, 8 << 20, 0}, buf{ramBase + g.data, 1, ring.DescWrite})
			q.kick()
			g.broken() // more than is copied for one command
		})
		each("a table of a million addresses", func(a *attack, g *netRig) {
			// What the table says of itself: more than there is, and more than a command may have.
			table := binary.LittleEndian.AppendUint32([]byte{spec.ClassMAC, spec.MACTableSet}, 1_000_000)
			for _, n := range []int{0, 6, 65_000, 500_000} {
				if ack := g.command(append(table, make([]byte, n)...)); ack != spec.AckErr {
					a.Errorf("%d bytes: %d", n, ack)
				}
			}
			for _, n := range []uint32{1<<32 - 1, 1 << 31, 0x2aaaaaab} { // times 6 is 2 in 32 bits
				if ack := g.command(append(binary.LittleEndian.AppendUint32([]byte{spec.ClassMAC, spec.MACTableSet}, n), 0, 0, 0, 0, 0, 0)); ack != spec.AckErr {
					a.Errorf("%d addresses: %d", n, ack)
				}
			}
			whole := spec.MACTable{Unicast: make([][6]byte, 10_000)}
			if ack := g.command(whole.Append([]byte{spec.ClassMAC, spec.MACTableSet})); ack != spec.AckOK {
				a.Errorf("10,000 addresses: %d", ack)
			}
		})
		each("scaling that makes no sense", func(a *attack, g *netRig) { absurdScaling(a, g) })
		each("random", func(a *attack, g *netRig) {
			r := a.random()
			good := commandsOf()
			for range 2_000 {
				c := slices.Clone(good[r.IntN(len(good))])
				switch r.IntN(3) {
				case 0:
					garbage(r, c[2:])
				case 1:
					c[r.IntN(len(c))] ^= 1 << r.IntN(8)
				default:
					c = append(c, make([]byte, r.IntN(300))...)
				}
				g.command(c)
			}
		})
		each("a flood", func(_ *attack, g *netRig) {
			// The ring is full of commands that change the data path.
			q := g.control()
			for n, c := range commandsOf() {
				g.ram.write(g.data+uint64(n)*pageSize, c)
			}
			mark := l.healthy.mark()
			for l.healthy.done.Load() < mark+2*progress && l.healthy.err() == nil {
				for i := range 32 {
					c := commandsOf()[i%12]
					q.put(buf{ramBase + g.data + uint64(i%12)*pageSize, uint32(len(c)), 0}, buf{ramBase + g.data + dataSize/2 - pageSize, 1, ring.DescWrite})
				}
				q.kick()
				q.until(32)
			}
		})
	}
}

// absurdScaling sends configurations of RSS and of hashes.
func absurdScaling(a *attack, g *netRig) {
	a.Helper()
	table := func(n int, q uint16) []uint16 { return slices.Repeat([]uint16{q}, n) }
	key := make([]byte, 255)
	for _, c := range []struct {
		name string
		rss  spec.RSSConfig
		ack  byte
	}{
		{"a table of 128", spec.RSSConfig{Table: table(128, 1), MaxTx: 1, Key: key[:40]}, spec.AckOK},
		{"a table of 256", spec.RSSConfig{Table: table(256, 1), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"a table of 3", spec.RSSConfig{Table: table(3, 1), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"a table of 16,384", spec.RSSConfig{Table: table(16384, 1), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"a queue that there is not", spec.RSSConfig{Table: table(4, victimPairs), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"queue 65,535", spec.RSSConfig{Table: table(4, 0xffff), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"queue 256", spec.RSSConfig{Table: table(4, 256), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"unclassified to 65,535", spec.RSSConfig{Unclassified: 0xffff, Table: table(4, 0), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"unclassified to 256", spec.RSSConfig{Unclassified: 256, Table: table(4, 0), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"no transmit queue", spec.RSSConfig{Table: table(4, 0), Key: key[:40]}, spec.AckErr},
		{"65,535 transmit queues", spec.RSSConfig{Table: table(4, 0), MaxTx: 0xffff, Key: key[:40]}, spec.AckErr},
		{"unknown hashes", spec.RSSConfig{HashTypes: 1 << 31, Table: table(4, 0), MaxTx: 1, Key: key[:40]}, spec.AckErr},
		{"no key", spec.RSSConfig{HashTypes: spec.HashAll, Table: table(4, 1), MaxTx: 1}, spec.AckOK},
		{"a key of a byte", spec.RSSConfig{HashTypes: spec.HashAll, Table: table(4, 1), MaxTx: 1, Key: key[:1]}, spec.AckOK},
		{"a key of 255 bytes", spec.RSSConfig{HashTypes: spec.HashAll, Table: table(4, 1), MaxTx: 1, Key: key}, spec.AckErr},
	} {
		b := c.rss.Append([]byte{spec.ClassMQ, spec.MQRSSConfig})
		if ack := g.command(b); ack != c.ack {
			a.Errorf("%s: %d, want %d", c.name, ack, c.ack)
		}
		hash := spec.HashConfig{HashTypes: c.rss.HashTypes, Key: c.rss.Key}
		g.command(hash.Append([]byte{spec.ClassMQ, spec.MQHashConfig}))
		g.a.lab.healthy.goesOn(a.T, g.a.lab.healthy.mark()) // frames are sorted so
	}
	// The mask says 65,536 entries.
	b := append([]byte{spec.ClassMQ, spec.MQRSSConfig, 0, 0, 0, 0, 0xff, 0xff, 0, 0}, make([]byte, 60_000)...)
	if ack := g.command(b); ack != spec.AckErr {
		a.Errorf("a table that is cut short: %d", ack)
	}
}
