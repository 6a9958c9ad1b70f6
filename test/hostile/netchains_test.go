package hostile

import (
	"testing"

	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
)

// brokenChains are chains that no driver may give, for a transmit or a receive queue. Each
// breaks the queue, unless it says otherwise.
var brokenChains = []struct {
	name   string
	give   func(q *vring, good buf)
	only   string // the layout in which there is such a thing
	spared string // the layout in which it is no error
}{
	{name: "that leads to itself", only: "split", give: func(q *vring, good buf) {
		q.setDesc(0, ring.Desc{Addr: good.addr, Len: good.n, Flags: good.flags | ring.DescNext, Next: 0})
		q.offer(0)
	}},
	{name: "that leads to itself by many", only: "split", give: func(q *vring, good buf) {
		for i := range q.size {
			q.setDesc(i, ring.Desc{Addr: good.addr, Len: good.n, Flags: good.flags | ring.DescNext, Next: (i + 1) % q.size})
		}
		q.offer(7)
	}},
	{name: "without an end", only: "packed", give: func(q *vring, good buf) {
		for i := range q.size {
			q.setPacked(i, ring.PackedDesc{Addr: good.addr, Len: good.n, Flags: good.flags | ring.DescNext | ring.DescAvail})
		}
	}},
	{name: "whose head is outside", only: "split", give: func(q *vring, _ buf) { q.offer(q.size) }},
	{name: "whose head is 65,535", only: "split", give: func(q *vring, _ buf) { q.offer(0xffff) }},
	{name: "that goes on outside", only: "split", give: func(q *vring, good buf) {
		q.setDesc(3, ring.Desc{Addr: good.addr, Len: good.n, Flags: good.flags | ring.DescNext, Next: q.size})
		q.offer(3)
	}},
	{name: "of an index that jumps by one too many", only: "split", give: func(q *vring, good buf) {
		q.put(good)
		q.g.ram.write16(q.driver+ring.AvailIndex, q.size+1)
	}},
	{name: "of an index that jumps by half of its range", only: "split", give: func(q *vring, _ buf) {
		q.g.ram.write16(q.driver+ring.AvailIndex, 0x8000)
	}},
	{name: "of an index that goes back", only: "split", give: func(q *vring, _ buf) {
		q.g.ram.write16(q.driver+ring.AvailIndex, 0xffff)
	}},
	{name: "in a table in a table", give: func(q *vring, good buf) {
		off := q.g.data + dataSize/4
		q.put(q.table(off, q.table(off+pageSize, good, good, good, good)))
	}, spared: "packed"}, // where the flag means nothing in a table (2.8.7)
	{name: "of a table with a next descriptor", give: func(q *vring, good buf) {
		q.put(q.table(q.g.data+dataSize/4, good), good)
	}},
	{name: "in a table of no length", give: func(q *vring, _ buf) { q.put(buf{ramBase + q.g.data, 0, ring.DescIndirect}) }},
	{name: "in a table of an odd length", give: func(q *vring, _ buf) { q.put(buf{ramBase + q.g.data, 24, ring.DescIndirect}) }},
	{name: "in a table of 4 GiB", give: func(q *vring, _ buf) {
		q.put(buf{ramBase + q.g.data, 0xfffffff0, ring.DescIndirect})
	}},
	{name: "in a table nowhere", give: func(q *vring, _ buf) { q.put(buf{nowhere, 32, ring.DescIndirect}) }},
	{name: "in a table at the end of the address space", give: func(q *vring, _ buf) {
		q.put(buf{1<<64 - 16, 32, ring.DescIndirect})
	}},
	{name: "that leaves its table", only: "split", give: func(q *vring, good buf) {
		t := q.table(q.g.data+dataSize/4, good, good)
		q.g.ram.write16(q.g.data+dataSize/4+14, 2)
		q.put(t)
	}},
	{name: "of 8 GiB", give: func(q *vring, good buf) {
		list := make([]buf, 1024)
		for i := range list {
			list[i] = buf{ramBase, 8 << 20, good.flags}
		}
		q.put(q.table(q.g.data+dataSize/4, list...))
	}},
	{name: "nowhere", give: func(q *vring, good buf) { q.put(buf{nowhere, 100, good.flags}) }},
	{name: "of 4 GiB", give: func(q *vring, good buf) { q.put(buf{ramBase, 0xffffffff, good.flags}) }},
	{name: "across the end of the memory", give: func(q *vring, good buf) {
		q.put(good, buf{ramBase + q.g.ram.size - 8, 16, good.flags})
	}},
	{name: "across the end of the address space", give: func(q *vring, good buf) { q.put(good, buf{1<<64 - 8, 16, good.flags}) }},
	{name: "read after written", give: func(q *vring, good buf) {
		q.put(buf{good.addr, good.n, ring.DescWrite}, buf{good.addr, good.n, 0})
	}},
	{name: "of the other direction", give: func(q *vring, good buf) { q.put(buf{good.addr, good.n, good.flags ^ ring.DescWrite}) }},
	{name: "shorter than a header", give: func(q *vring, good buf) {
		q.put(buf{good.addr, uint32(q.g.header() - 1), good.flags})
	}},
	{name: "of empty buffers", give: func(q *vring, good buf) {
		q.put(buf{good.addr, 0, good.flags}, buf{nowhere, 0, good.flags}, buf{1<<64 - 1, 0, good.flags})
	}},
}

func (q *vring) setDesc(i uint16, d ring.Desc) {
	q.g.a.Helper()
	var b [ring.DescSize]byte
	d.Put(b[:])
	q.g.ram.write(q.desc+ring.DescBytes(i), b[:])
}

func (q *vring) setPacked(i uint16, d ring.PackedDesc) {
	q.g.a.Helper()
	var b [ring.DescSize]byte
	d.Put(b[:])
	q.g.ram.write(q.desc+ring.DescBytes(i), b[:])
}

// A broken chain breaks the attacker's card until that is reset, and nothing else.
func TestVirtioNetChains(t *testing.T) {
	l := newNetLab(t, virtionet.Config{})
	for _, layout := range layouts {
		for queue, name := range []string{"receive", "transmit"} {
			for _, c := range brokenChains {
				if c.only != "" && c.only != layout.name {
					continue
				}
				l.attack(t, layout.name+", "+name+", a chain "+c.name, func(a *attack) {
					g := a.netStarted(layout.features|netFeatures, 64)
					q := g.rings[queue]
					good := g.frame(foreign(100))
					if queue == rxQueue {
						good = buf{ramBase + g.data, 4096, ring.DescWrite}
					}
					c.give(q, good)
					q.kick()
					if c.spared != layout.name {
						g.broken()
					}
					g.works()
				})
			}
			l.attack(t, layout.name+", "+name+", a table that was not negotiated", func(a *attack) {
				g := a.netStarted(layout.features, 64)
				q := g.rings[queue]
				q.put(q.table(g.data+pageSize, buf{ramBase + g.data, 2048, ring.DescWrite}))
				q.kick()
				g.broken()
				g.works()
			})
		}
		l.attack(t, layout.name+", random rings", func(a *attack) {
			defer l.neighbours.underFlood()() // it may send what it has received, as if it were another card
			randomRings(a, layout.features)
		})
	}
}

// randomRings fills everything with random bytes, half of them such as make sense.
func randomRings(a *attack, features uint64) {
	r := a.random()
	g := a.newNetRig(16 << 20)
	for range 60 {
		g.ram.used = g.data + dataSize
		g.start(features|netFeatures, 64)
		for _, q := range g.rings[:g.queues()] {
			for i := range q.size {
				d := ring.PackedDesc{Addr: ramBase + r.Uint64N(17<<20), Len: r.Uint32N(4096), ID: uint16(r.UintN(70)), Flags: uint16(r.Uint32()) & 7}
				if r.IntN(8) == 0 {
					d.Addr, d.Len = r.Uint64(), r.Uint32()
				}
				if g.features&ring.FeatureRingPacked != 0 {
					d.Flags |= ring.DescAvail
					q.setPacked(i, d)
					continue
				}
				q.setDesc(i, ring.Desc{Addr: d.Addr, Len: d.Len, Flags: d.Flags, Next: d.ID})
				q.offer(uint16(r.UintN(66)))
			}
			q.kick()
		}
		g.alive()
		if r.IntN(2) == 0 {
			g.readStatus()
			l := a.lab.healthy
			for mark := l.done.Load(); l.done.Load() < mark+2 && l.err() == nil; { // frames come
				g.alive()
			}
		}
		g.reset()
	}
	g.works()
}
