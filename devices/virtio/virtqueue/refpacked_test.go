package virtqueue

import (
	"math/rand/v2"
	"slices"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// refPacked is a driver of a packed ring. It counts places without end: place p is entry p %
// size in round p / size, in which the wrap counter is 1 if the round is even.
type refPacked struct {
	g      *guest
	cfg    Config
	rng    *rand.Rand
	ids    []uint16 // free
	order  fifo
	offers map[uint16]*offer
	size   map[uint16]int // descriptors by id
	free   int
	next   int // place to write
	seen   int // place to look at
	event  int
	flags  uint32
	first  []shownLast // what makes the placed chains available
}

// shownLast is the upper word of the first descriptor of a chain.
type shownLast struct {
	place int
	word  uint64
}

func newRefPacked(g *guest, cfg Config, rng *rand.Rand, start int) *refPacked {
	d := &refPacked{g: g, cfg: cfg, rng: rng, offers: map[uint16]*offer{}, size: map[uint16]int{}, free: int(cfg.Size)}
	for len(d.ids) < int(cfg.Size) {
		if id := uint16(rng.Uint32()); !slices.Contains(d.ids, id) { // any 16 bits will do
			d.ids = append(d.ids, id)
		}
	}
	d.next, d.seen = start, start
	// The ring as a device left it: used in the rounds before.
	for p := max(start-int(cfg.Size), 0); p < start; p++ {
		var flags uint64
		if d.wrap(p) {
			flags = 1<<7 | 1<<15
		}
		dma.Store64(d.entry(p), 8, flags<<48)
	}
	d.want(0)
	return d
}

func (d *refPacked) wrap(p int) bool    { return p/int(d.cfg.Size)%2 == 0 }
func (d *refPacked) index(p int) uint16 { return uint16(p % int(d.cfg.Size)) }
func (d *refPacked) room() int          { return d.free }
func (d *refPacked) entry(p int) []byte {
	return d.g.at(d.cfg.Desc+16*uint64(d.index(p)), 16)
}

// position is what event suppression structures and states say of a place.
func (d *refPacked) position(p int) uint16 {
	if d.wrap(p) {
		return d.index(p) | 0x8000
	}
	return d.index(p)
}

func (d *refPacked) place(o *offer) {
	i := d.rng.IntN(len(d.ids))
	id := d.ids[i]
	d.ids = slices.Delete(d.ids, i, i+1)
	list := o.elements
	if o.table != 0 {
		writeTable(d.g, o.table, o.elements, true)
		list = []element{{addr: o.table, n: 16 * uint32(len(o.elements))}}
	}
	for i, e := range list {
		desc := spec.PackedDesc{Addr: e.addr, Len: e.n, ID: 0xdead}
		if o.table != 0 {
			desc.Flags = 4
		}
		if e.write {
			desc.Flags |= 2
		}
		if i < len(list)-1 {
			desc.Flags |= 1
		} else {
			desc.ID = id
		}
		if d.wrap(d.next) {
			desc.Flags |= 1 << 7
		} else {
			desc.Flags |= 1 << 15
		}
		b := d.entry(d.next)
		dma.Store64(b, 0, desc.Addr)
		if i == 0 {
			d.first = append(d.first, shownLast{d.next, desc.Word()})
		} else {
			dma.Store64(b, 8, desc.Word())
		}
		d.next++
	}
	d.offers[id], d.size[id] = o, len(list)
	if d.cfg.InOrder {
		d.order = append(d.order, id)
	}
	d.free -= len(list)
}

func (d *refPacked) show() bool {
	if len(d.first) == 0 {
		return false
	}
	from := d.first[0].place
	// The last one first: the device must not care.
	for _, f := range slices.Backward(d.first) {
		dma.Store64(d.entry(f.place), 8, f.word)
	}
	d.first = d.first[:0]
	word := dma.Load32(d.g.at(d.cfg.Device, 4), 0)
	switch word >> 16 {
	case 0:
		return true
	case 1:
		return false
	case 2:
		for p := from; p < d.next; p++ {
			if uint32(d.position(p)) == word&0xffff {
				return true
			}
		}
		return false
	}
	d.g.t.Fatalf("device event suppression %#x", word)
	return false
}

func (d *refPacked) want(n int) {
	d.flags, d.event = 0, d.seen+n
	word := uint32(0xfffc) << 16 // reserved bits
	if d.cfg.EventIdx {
		d.flags = 2
		word |= 2<<16 | uint32(d.position(d.event))
	}
	dma.Store32(d.g.at(d.cfg.Driver, 4), 0, word)
}

func (d *refPacked) quiet() {
	d.flags = 1
	dma.Store32(d.g.at(d.cfg.Driver, 4), 0, 1<<16)
}

func (d *refPacked) collect() (chains []usedChain, interrupt bool) {
	from := d.seen
	for {
		b := d.entry(d.seen)
		desc := spec.PackedDescOf(0, dma.Load64(b, 8))
		avail, used := desc.Flags&(1<<7) != 0, desc.Flags&(1<<15) != 0
		if w := d.wrap(d.seen); avail != w || used != w {
			break
		}
		if d.offers[desc.ID] == nil {
			d.g.t.Fatalf("buffer id %d is used and was not available", desc.ID)
		}
		if (desc.Flags&2 != 0) != (desc.Len > 0) {
			d.g.t.Fatalf("used descriptor with %d bytes has flags %#x", desc.Len, desc.Flags)
		}
		for _, id := range d.order.until(desc.ID, d.cfg.InOrder) {
			o := d.offers[id]
			u := usedChain{o, o.writable()}
			if id == desc.ID {
				u.n = desc.Len
			}
			chains = append(chains, u)
			d.seen += d.size[id]
			d.free += d.size[id]
			d.ids = append(d.ids, id)
			delete(d.offers, id)
		}
	}
	switch d.flags {
	case 0:
		interrupt = len(chains) > 0
	case 2:
		for p := from; p < d.seen; p++ {
			if d.position(p) == d.position(d.event) {
				interrupt = true
			}
		}
	}
	return chains, interrupt
}
