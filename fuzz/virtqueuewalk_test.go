package fuzz

import (
	"math"

	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/dma"
)

// The slow walker follows chains one descriptor at a time, with the flags written out, as the
// specification has it (2.7.5, 2.7.6, 2.8.5 to 2.8.7). It shares nothing with package virtqueue.

// vqBuffer is a buffer of a chain.
type vqBuffer struct {
	addr, n uint64
	write   bool
}

// vqChain is a chain as the walker finds it.
type vqChain struct {
	id, descs   uint16
	buffers     []vqBuffer // without those of no length
	read, write uint64     // bytes
	content     []byte     // of what is to be read
}

// vqWalk is what one call of Take may find: chains, and what is wrong with the one behind
// them. Where a driver breaks several rules at once any may be told.
type vqWalk struct {
	chains []vqChain
	rules  []error
	at     uint16 // entry that the rules are about
}

// vqWalker follows the ring in mem.
type vqWalker struct {
	mem      *vqMemory
	cfg      *virtqueue.Config
	remote   bool   // all memory is reached by message
	maxBytes uint64 // of a chain by message
	chain    vqChain
	slices   int // of the chain's memory, as borders of regions cut it
}

// walk finds up to n chains; next is how far chains were taken, inflight what the device has.
func (w *vqWalker) walk(next uint32, inflight, n int) (r vqWalk) {
	size := int(w.cfg.Size)
	if w.cfg.Packed {
		for room := size - inflight; len(r.chains) < n; {
			at := next % uint32(size)
			round := next/uint32(size)%2 == 0
			flags := uint16(w.mem.get16(w.cfg.Desc + 16*uint64(at) + 14))
			if avail, used := flags&(1<<7) != 0, flags&(1<<15) != 0; avail != round || used == round {
				return r
			}
			r.at = uint16(at)
			rules := w.read(w.packed(at))
			if room -= int(w.chain.descs); room < 0 {
				rules = append(rules, virtqueue.ErrIndex)
			}
			if !w.finish(&r, rules) {
				return r
			}
			next += uint32(w.chain.descs)
		}
		return r
	}
	shown := int(w.mem.get16(w.cfg.Driver+2) - uint16(next))
	if r.at = uint16(next) % uint16(size); shown > size-inflight {
		r.rules = []error{virtqueue.ErrIndex}
		return r
	}
	for i := range min(n, shown) {
		r.at = (uint16(next) + uint16(i)) % uint16(size)
		head := w.mem.get16(w.cfg.Driver + 4 + 2*uint64(r.at))
		var rules []error
		if int(head) >= size {
			rules = []error{virtqueue.ErrHead}
		} else {
			rules = w.read(w.split(head))
		}
		if !w.finish(&r, rules) {
			return r
		}
	}
	return r
}

// read takes the content of a chain in which nothing is wrong so far.
func (w *vqWalker) read(rules []error) []error {
	c := &w.chain
	if len(rules) == 0 && w.remote && c.read+c.write > w.maxBytes {
		return []error{virtqueue.ErrTooLong}
	}
	for _, b := range c.buffers {
		if len(rules) > 0 || b.write {
			break
		}
		if w.remote && !w.mem.reachable(b.addr, b.n, dma.ProtRead) {
			return []error{virtqueue.ErrMemory}
		}
		c.content = append(c.content, w.mem.want[b.addr-vqBase:][:b.n]...)
	}
	return rules
}

// finish adds the chain that was walked, unless something is wrong with it.
func (w *vqWalker) finish(r *vqWalk, rules []error) bool {
	if r.rules = rules; len(rules) > 0 {
		return false
	}
	r.chains = append(r.chains, w.chain)
	return true
}

// vqDesc is a descriptor: two words, of which the layouts differ.
type vqDesc struct {
	addr, n         uint64
	flags, id, next uint16
}

func (w *vqWalker) desc(addr uint64) vqDesc {
	d := vqDesc{addr: w.mem.get64(addr), n: uint64(w.mem.get32(addr + 8))}
	if w.cfg.Packed {
		d.id, d.flags = w.mem.get16(addr+12), w.mem.get16(addr+14)
	} else {
		d.flags, d.next = w.mem.get16(addr+12), w.mem.get16(addr+14)
	}
	return d
}

func (w *vqWalker) begin(id uint16) { w.chain, w.slices = vqChain{id: id, descs: 1}, 0 }

// split walks the chain from a head.
func (w *vqWalker) split(head uint16) []error {
	w.begin(head)
	table, entries, inside := w.cfg.Desc, int(w.cfg.Size), false
	buffers, seen := 0, map[uint16]bool{}
	for at := head; ; {
		seen[at] = true
		d := w.desc(table + 16*uint64(at))
		if d.flags&4 != 0 {
			rules := w.table(d)
			if inside {
				rules = append(rules, virtqueue.ErrNested)
			}
			if d.flags&1 != 0 {
				rules = append(rules, virtqueue.ErrIndirectNext)
			}
			if len(rules) > 0 {
				return rules
			}
			table, entries, inside = d.addr, int(d.n/16), true
			at, seen = 0, map[uint16]bool{}
			continue
		}
		rules := w.add(d)
		if buffers++; buffers > w.cfg.MaxChain {
			rules = append(rules, virtqueue.ErrTooLong)
		}
		if len(rules) > 0 {
			return rules
		}
		if d.flags&1 == 0 {
			return nil
		}
		if int(d.next) >= entries {
			return []error{virtqueue.ErrNext}
		}
		if seen[d.next] {
			// A loop is noticed at the latest when all of the table would have been walked.
			return w.loop(table, d.next, entries, buffers)
		}
		at = d.next
	}
}

// loop is what may be told of a chain that comes to a descriptor for the second time: that, or
// what the buffers add up to before it is noticed.
func (w *vqWalker) loop(table uint64, at uint16, entries, buffers int) []error {
	rules := []error{virtqueue.ErrLoop}
	for range entries + 1 {
		d := w.desc(table + 16*uint64(at))
		rules = append(rules, w.add(d)...)
		if buffers++; buffers > w.cfg.MaxChain {
			rules = append(rules, virtqueue.ErrTooLong)
		}
		at = d.next
	}
	return rules
}

// packed walks the chain whose first descriptor is at this place.
func (w *vqWalker) packed(at uint32) []error {
	d := w.desc(w.cfg.Desc + 16*uint64(at))
	w.begin(d.id)
	if d.flags&4 != 0 && d.flags&1 == 0 {
		if rules := w.table(d); len(rules) > 0 {
			return rules
		}
		for i := range d.n / 16 {
			if rules := w.add(w.desc(d.addr + 16*i)); len(rules) > 0 {
				return rules
			}
		}
		return nil
	}
	for n := uint16(1); ; n++ {
		var rules []error
		switch {
		case d.flags&4 != 0:
			rules = []error{virtqueue.ErrIndirectNext, virtqueue.ErrIndirect}
		case n > w.cfg.Size:
			rules = []error{virtqueue.ErrLoop}
		}
		if int(n) > w.cfg.MaxChain {
			rules = append(rules, virtqueue.ErrTooLong)
		}
		if len(rules) > 0 {
			return rules
		}
		if rules := w.add(d); len(rules) > 0 {
			return rules
		}
		w.chain.id, w.chain.descs = d.id, n
		if d.flags&1 == 0 {
			return nil
		}
		d = w.desc(w.cfg.Desc + 16*uint64((at+uint32(n))%uint32(w.cfg.Size)))
	}
}

// table says what is wrong with an indirect table.
func (w *vqWalker) table(d vqDesc) (rules []error) {
	if !w.cfg.Indirect {
		rules = append(rules, virtqueue.ErrIndirect)
	}
	if d.n == 0 || d.n%16 != 0 || int(d.n/16) > w.cfg.MaxChain {
		rules = append(rules, virtqueue.ErrTable)
	}
	return append(rules, w.access(d.addr, d.n, dma.ProtRead)...)
}

// access says what is wrong with a range.
func (w *vqWalker) access(addr, n uint64, prot dma.Prot) []error {
	switch {
	case n > 0 && n-1 > math.MaxUint64-addr:
		return []error{virtqueue.ErrAddress}
	case w.remote && prot == dma.ProtRead && !w.mem.reachable(addr, n, prot):
		return []error{virtqueue.ErrMemory}
	case w.remote:
		return nil
	}
	if _, wrong := w.mem.pieces(addr, n, prot); wrong != nil {
		return []error{wrong}
	}
	return nil
}

// add appends a buffer, and says what is wrong with it.
func (w *vqWalker) add(d vqDesc) (rules []error) {
	if d.n == 0 {
		return nil
	}
	c := &w.chain
	b := vqBuffer{d.addr, d.n, d.flags&2 != 0}
	if c.read+c.write+d.n > math.MaxUint32 {
		rules = append(rules, virtqueue.ErrLength)
	}
	if !b.write && c.write > 0 {
		rules = append(rules, virtqueue.ErrOrder)
	}
	prot := dma.ProtRead
	if b.write {
		prot = dma.ProtWrite
	}
	if w.remote {
		if d.n-1 > math.MaxUint64-d.addr {
			rules = append(rules, virtqueue.ErrAddress)
		}
	} else {
		rules = append(rules, w.slice(b, prot)...)
	}
	if b.write {
		c.write += d.n
	} else {
		c.read += d.n
	}
	c.buffers = append(c.buffers, b)
	return rules
}

// slice counts the parts that a mapped buffer falls into: more than a chain may have buffers
// are refused where regions cut it.
func (w *vqWalker) slice(b vqBuffer, prot dma.Prot) (rules []error) {
	list, wrong := w.mem.pieces(b.addr, b.n, prot)
	if wrong != nil {
		rules = append(rules, wrong)
	}
	if w.slices += len(list); len(list) > 1 && w.slices > w.cfg.MaxChain {
		rules = append(rules, virtqueue.ErrTooLong)
	} else if wrong != nil && w.slices >= w.cfg.MaxChain {
		rules = append(rules, virtqueue.ErrTooLong)
	}
	return rules
}
