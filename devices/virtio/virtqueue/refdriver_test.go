package virtqueue

import (
	"math/rand/v2"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// The reference is the driver's side written down as the specification says it, index by
// index: slow, and without anything of the code under test.

// element is a buffer of a chain.
type element struct {
	addr  uint64
	n     uint32
	write bool
}

// offer is a chain that the driver makes available.
type offer struct {
	seq      int
	slot     int
	elements []element
	table    uint64 // guest address of an indirect table, 0: none
	direct   int    // elements before the table (split)
}

// writable is what the device may write, in bytes.
func (o *offer) writable() (n uint32) {
	for _, e := range o.elements {
		if e.write {
			n += e.n
		}
	}
	return n
}

// fifo are heads or ids in the order in which they were made available.
type fifo []uint16

// until takes out the one that the device says it used, and with IN_ORDER all before it,
// which are used too (2.7.9, 2.8.9).
func (f *fifo) until(id uint16, inOrder bool) []uint16 {
	if !inOrder {
		return []uint16{id}
	}
	for i, x := range *f {
		if x == id {
			used := (*f)[:i+1]
			*f = (*f)[i+1:]
			return used
		}
	}
	return nil
}

// usedChain is what the driver finds used.
type usedChain struct {
	o *offer
	n uint32
}

// refDriver is the driver of either layout.
type refDriver interface {
	// room is the number of descriptors that can be placed.
	room() int
	// place puts a chain into the ring, where the device does not see it yet.
	place(o *offer)
	// show makes available what was placed and says whether the device asked for a notification.
	show() (notify bool)
	// want asks for an interrupt when the n-th chain (split) or descriptor (packed) from the
	// next one is used; quiet asks for none.
	want(n int)
	quiet()
	// wanted says, from what the driver asked for last, whether a device that used what
	// collect found has to interrupt. collected chains must be all that one Publish showed.
	collect() (chains []usedChain, interrupt bool)
}

// refSplit is a driver of a split ring.
type refSplit struct {
	g       *guest
	cfg     Config
	rng     *rand.Rand
	free    []uint16
	next    uint16 // IN_ORDER: descriptor to use next
	order   fifo
	heads   map[uint16]*offer
	descs   map[uint16][]uint16 // by head
	idx     uint16              // available index, with what was placed
	shown   uint16
	seen    uint16 // used index
	event   uint16
	enabled bool
}

func newRefSplit(g *guest, cfg Config, rng *rand.Rand, start uint16) *refSplit {
	d := &refSplit{g: g, cfg: cfg, rng: rng, heads: map[uint16]*offer{}, descs: map[uint16][]uint16{}, enabled: true}
	for i := range cfg.Size {
		d.free = append(d.free, i)
	}
	d.idx, d.shown, d.seen, d.event = start, start, start, start
	dma.Store16(d.avail(), 2, start)
	dma.Store16(d.used(), 2, start)
	dma.Store16(d.used(), 4+8*int(cfg.Size), start)
	if cfg.InOrder {
		d.next = start % cfg.Size
	}
	d.want(0)
	return d
}

func (d *refSplit) avail() []byte { return d.g.at(d.cfg.Driver, 6+2*int(d.cfg.Size)) }
func (d *refSplit) used() []byte  { return d.g.at(d.cfg.Device, 6+8*int(d.cfg.Size)) }
func (d *refSplit) room() int     { return len(d.free) }

func (d *refSplit) alloc() uint16 {
	i := d.rng.IntN(len(d.free))
	if d.cfg.InOrder {
		for i = range d.free {
			if d.free[i] == d.next {
				break
			}
		}
		d.next = (d.next + 1) % d.cfg.Size
	}
	x := d.free[i]
	d.free[i] = d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	return x
}

func (d *refSplit) place(o *offer) {
	direct := o.elements
	if o.table != 0 {
		direct = o.elements[:o.direct]
		writeTable(d.g, o.table, o.elements[o.direct:], false)
	}
	n := len(direct)
	if o.table != 0 {
		n++
	}
	var list []uint16
	for range n {
		list = append(list, d.alloc())
	}
	for i, x := range list {
		var desc spec.Desc
		if i < len(direct) {
			desc = spec.Desc{Addr: direct[i].addr, Len: direct[i].n}
			if direct[i].write {
				desc.Flags = 2
			}
		} else {
			desc = spec.Desc{Addr: o.table, Len: 16 * uint32(len(o.elements)-o.direct), Flags: 4}
		}
		desc.Next = 0xdead
		if i < len(list)-1 {
			desc.Flags |= 1
			desc.Next = list[i+1]
		}
		d.g.desc(d.cfg.Desc, int(x), desc)
	}
	d.heads[list[0]], d.descs[list[0]] = o, list
	if d.cfg.InOrder {
		d.order = append(d.order, list[0])
	}
	dma.StoreRelease16(d.avail(), 4+2*int(d.idx%d.cfg.Size), list[0])
	d.idx++
}

// writeTable writes an indirect table. That of a split ring lies in another order than it is
// chained; in that of a packed ring all but the write flag means nothing.
func writeTable(g *guest, addr uint64, elements []element, packed bool) {
	at := func(i int) int { return i }
	if !packed {
		at = func(i int) int { return (len(elements) - i) % len(elements) }
	}
	for i, e := range elements {
		desc := spec.Desc{Addr: e.addr, Len: e.n}
		var flags uint16
		if e.write {
			flags = 2
		}
		switch {
		case packed: // id, then flags, lie where flags and next are in a split ring
			desc.Flags, desc.Next = 0xbeef, 0xfffd|flags
		case i < len(elements)-1:
			desc.Flags, desc.Next = flags|1, uint16(at(i+1))
		default:
			desc.Flags, desc.Next = flags, 0xdead
		}
		g.desc(addr, at(i), desc)
	}
}

func (d *refSplit) show() bool {
	old := d.shown
	d.shown = d.idx
	dma.Store16(d.avail(), 2, d.idx)
	if !d.cfg.EventIdx {
		return dma.Load16(d.used(), 0) == 0
	}
	event := dma.Load16(d.used(), 4+8*int(d.cfg.Size))
	for i := old; i != d.idx; i++ {
		if i == event {
			return true
		}
	}
	return false
}

func (d *refSplit) want(n int) {
	d.enabled = true
	if d.cfg.EventIdx {
		d.event = d.seen + uint16(n)
		dma.Store16(d.avail(), 4+2*int(d.cfg.Size), d.event)
	} else {
		dma.Store16(d.avail(), 0, 0)
	}
}

func (d *refSplit) quiet() {
	d.enabled = false
	if d.cfg.EventIdx {
		d.event = d.seen - 1
		dma.Store16(d.avail(), 4+2*int(d.cfg.Size), d.event)
	} else {
		dma.Store16(d.avail(), 0, 1)
	}
}

func (d *refSplit) collect() (chains []usedChain, interrupt bool) {
	to := dma.Load16(d.used(), 2)
	interrupt = !d.cfg.EventIdx && d.enabled && to != d.seen
	for d.seen != to {
		at := 4 + 8*int(d.seen%d.cfg.Size)
		head, n := dma.Load32(d.used(), at), dma.Load32(d.used(), at+4)
		if d.heads[uint16(head)] == nil || head > 0xffff {
			d.g.t.Fatalf("head %d is used and was not available", head)
		}
		for _, h := range d.order.until(uint16(head), d.cfg.InOrder) {
			o := d.heads[h]
			u := usedChain{o, o.writable()} // skipped: completely used
			if h == uint16(head) {
				u.n = n
			}
			chains = append(chains, u)
			d.free = append(d.free, d.descs[h]...)
			delete(d.heads, h)
			if d.seen == to {
				d.g.t.Fatalf("head %d is used, which is past the index", head)
			}
			if d.cfg.EventIdx && d.seen == d.event {
				interrupt = true
			}
			d.seen++
		}
	}
	return chains, interrupt
}
