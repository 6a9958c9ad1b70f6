package virtqueue

import (
	"encoding/binary"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// takePacked works in stages as takeSplit does: flags (with length and id, as one word), then
// addresses, then memory. A chain of several descriptors is followed at once.
func (q *Queue) takePacked(chains []Chain) (int, error) {
	var err error
	n, at, wrap, room := 0, q.avail, q.availWrap, int(q.size)-q.inflight
	for ; n < len(chains); n++ {
		hi := dma.Load64(q.desc, spec.DescSize*int(at)+8)
		if !available(hi, wrap) {
			break
		}
		c := &chains[n]
		c.hi, c.at = hi, spec.Position(at, wrap)
		c.id, c.descs = uint16(hi>>32), 1
		if hi>>48&spec.DescNext != 0 {
			if err = q.walkPacked(c); err != nil {
				break
			}
		}
		if room -= int(c.descs); room < 0 {
			err = &Error{Rule: ErrIndex, Len: uint64(c.descs)}
			break
		}
		at, wrap = q.advance(at, wrap, c.descs)
		if q.walked > maxWalked {
			n++
			break
		}
	}
	for i := range chains[:n] {
		c := &chains[i]
		place, _ := spec.PositionParts(c.at)
		c.lo = dma.Load64(q.desc, spec.DescSize*int(place))
	}
	for i := range chains[:n] {
		c := &chains[i]
		if c.hi>>48&spec.DescNext != 0 {
			continue
		}
		c.reset()
		if q.single(c, c.hi, c.hi>>48) {
			continue
		}
		if e := q.onePacked(c); e != nil {
			n, err = i, e
			break
		}
		if q.walked > maxWalked {
			n, err = i+1, nil // what is wrong behind it comes up again
			break
		}
	}
	if err != nil {
		at, _ = spec.PositionParts(chains[n].at)
		err = fail(err, at)
	}
	q.tookPacked(chains[:n])
	return n, err
}

// available says whether a descriptor with this upper word is available in the round with
// this wrap counter (2.8.1).
func available(hi uint64, wrap bool) bool {
	return uint16(hi>>48)&(spec.DescAvail|spec.DescUsed) == spec.PackedAvail(wrap)
}

// advance moves a place n descriptors on.
func (q *Queue) advance(at uint16, wrap bool, n uint16) (uint16, bool) {
	if at += n; at >= q.size {
		return at - q.size, !wrap
	}
	return at, wrap
}

// tookPacked moves on past chains, and remembers where they were for Untake.
func (q *Queue) tookPacked(chains []Chain) {
	for i := range chains {
		c := &chains[i]
		q.places[q.place] = c.at
		if q.place++; q.place == len(q.places) {
			q.place = 0
		}
		q.avail, q.availWrap = q.advance(q.avail, q.availWrap, c.descs)
		q.inflight += int(c.descs)
	}
}

func (q *Queue) untakePacked(n int) {
	if n == 0 {
		return
	}
	if q.place -= n; q.place < 0 {
		q.place += len(q.places)
	}
	at, wrap := spec.PositionParts(q.places[q.place])
	back := int(q.avail) - int(at)
	if wrap != q.availWrap {
		back += int(q.size)
	}
	q.avail, q.availWrap = at, wrap
	q.inflight -= back
}

// onePacked handles a chain that has one descriptor in the ring: a buffer or a table. In a
// table only DescWrite means something, and the descriptors follow one another (2.8.7).
func (q *Queue) onePacked(c *Chain) error {
	d := spec.PackedDescOf(c.lo, c.hi)
	if d.Flags&spec.DescIndirect == 0 {
		return q.add(c, d.Addr, d.Len, d.Flags)
	}
	if !q.cfg.Indirect {
		return &Error{Rule: ErrIndirect}
	}
	table, err := q.table(d.Addr, d.Len)
	if err != nil {
		return err
	}
	for at := 0; at < len(table); at += spec.DescSize {
		d := spec.PackedDescOf(dma.Load64(table, at), dma.Load64(table, at+8))
		if err := q.add(c, d.Addr, d.Len, d.Flags); err != nil {
			return err
		}
	}
	return nil
}

// walkPacked follows a chain whose first descriptor has DescNext. Its id is in the last one
// (2.8.6).
func (q *Queue) walkPacked(c *Chain) error {
	c.reset()
	place, _ := spec.PositionParts(c.at)
	at, hi := int(place), c.hi
	for n := 1; ; n++ {
		d := spec.PackedDescOf(dma.Load64(q.desc, spec.DescSize*at), hi)
		switch {
		case d.Flags&spec.DescIndirect != 0:
			return &Error{Rule: ErrIndirectNext}
		case n > int(q.size):
			return &Error{Rule: ErrLoop}
		case n > q.cfg.MaxChain:
			return &Error{Rule: ErrTooLong}
		}
		if err := q.add(c, d.Addr, d.Len, d.Flags); err != nil {
			return err
		}
		if d.Flags&spec.DescNext == 0 {
			c.id, c.descs = d.ID, uint16(n)
			return nil
		}
		if at++; at == int(q.size) {
			at = 0
		}
		if q.mem != nil {
			if err := q.readDesc(at); err != nil {
				return err
			}
		}
		hi = dma.Load64(q.desc, spec.DescSize*at+8)
	}
}

// usedWord is the upper word of a used descriptor.
func usedWord(e uint64, wrap bool) uint64 {
	d := spec.PackedDesc{Len: uint32(e >> 32), ID: uint16(e), Flags: spec.PackedUsed(wrap)}
	if d.Len > 0 {
		d.Flags |= spec.DescWrite
	}
	return d.Word()
}

// publishPacked writes the used descriptor that the driver looks at last (2.8.9).
func (q *Queue) publishPacked() bool {
	if q.mem != nil {
		if err := q.sendPacked(); err != nil {
			q.broke(err)
			return false
		}
		err := q.readWish()
		return q.publishedPacked() || err != nil
	}
	at, wrap := q.used, q.usedWrap
	for i, e := range q.pushed {
		if i > 0 {
			binary.LittleEndian.PutUint64(q.desc[spec.DescSize*int(at)+8:], usedWord(e, wrap))
		}
		at, wrap = q.advance(at, wrap, entrySkip(e))
	}
	// The fence: the driver asks for interrupts, then looks at the descriptor.
	dma.Store64(q.desc, spec.DescSize*int(q.used)+8, usedWord(q.pushed[0], q.usedWrap))
	if wrap == q.usedWrap {
		q.wroteDesc(q.used, at)
	} else {
		q.wroteDesc(q.used, q.size)
		q.wroteDesc(0, at)
	}
	return q.publishedPacked()
}

// wroteDesc tells the dirty log of descriptors.
func (q *Queue) wroteDesc(from, to uint16) {
	q.r.Wrote(q.cfg.Desc+spec.DescBytes(from), spec.DescBytes(to-from))
}

// publishedPacked moves on past what was just published and says whether the driver wants
// an interrupt for it.
func (q *Queue) publishedPacked() bool {
	var n uint16
	for _, e := range q.pushed {
		n += entrySkip(e)
	}
	q.used, q.usedWrap = q.advance(q.used, q.usedWrap, n)
	q.inflight -= int(n)
	q.pushed, q.joins = q.pushed[:0], false
	at, flags := spec.EventParts(dma.Load32(q.driver, 0))
	switch {
	case flags == spec.EventDisable:
		return false
	case flags == spec.EventDesc && q.cfg.EventIdx:
		event, wrap := spec.PositionParts(at)
		if wrap != q.usedWrap {
			event -= q.size
		}
		return spec.NeedEvent(event, q.used, q.used-n)
	}
	return true
}

// notify writes the device's event suppression structure.
func (q *Queue) notify(word uint32) error {
	if q.mem != nil {
		b := q.remote.word[:spec.EventSize]
		binary.LittleEndian.PutUint32(b, word)
		return q.write(q.cfg.Device, b)
	}
	dma.Store32(q.device, 0, word)
	q.wrote(0, spec.EventSize)
	return nil
}

func (q *Queue) armPacked() bool {
	word := uint32(spec.EventEnable)
	if q.cfg.EventIdx {
		word = spec.EventWord(spec.Position(q.avail, q.availWrap), spec.EventDesc)
	}
	if err := q.notify(word); err != nil {
		q.remote.unarmed = err
		return true
	}
	return q.Available() > 0
}

func (q *Queue) availablePacked() int {
	if available(dma.Load64(q.desc, spec.DescSize*int(q.avail)+8), q.availWrap) {
		return 1
	}
	return 0
}
