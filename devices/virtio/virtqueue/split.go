package virtqueue

import (
	"encoding/binary"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// takeSplit works in stages (heads, descriptors, memory), so that the cache misses of a
// batch, which are most of its cost, overlap.
func (q *Queue) takeSplit(chains []Chain) (int, error) {
	mask := q.size - 1
	if q.mem != nil {
		if err := q.lookSplit(len(chains)); err != nil {
			return 0, err
		}
	}
	n := int(dma.Load16(q.driver, spec.AvailIndex) - q.avail)
	if n > int(q.size)-q.inflight {
		return 0, &Error{Rule: ErrIndex, At: q.avail & mask, Len: uint64(n)}
	}
	n = min(n, len(chains))
	chains = chains[:n]
	var err error
	for i := range chains {
		at := (q.avail + uint16(i)) & mask
		// Load16, of which the compiler makes no call: the aligned word around it.
		pair := dma.Load32(q.driver, spec.AvailRing+spec.AvailEntrySize*int(at&^1))
		head := uint16(pair >> (at & 1 * 16))
		if head > mask {
			chains, err = chains[:i], &Error{Rule: ErrHead, At: at}
			break
		}
		chains[i].id, chains[i].descs = head, 1
	}
	if q.mem != nil {
		return q.fetchSplit(chains, err)
	}
	for i := range chains {
		c := &chains[i]
		at := spec.DescSize * int(c.id)
		c.lo, c.hi = dma.Load64(q.desc, at), dma.Load64(q.desc, at+8)
	}
	for i := range chains {
		c := &chains[i]
		c.reset()
		if q.single(c, c.hi, c.hi>>32) {
			continue
		}
		if e := q.walkSplit(c); e != nil {
			chains, err = chains[:i], fail(e, (q.avail+uint16(i))&mask)
			break
		}
		if q.walked > maxWalked {
			chains, err = chains[:i+1], nil // what is wrong behind it comes up again
			break
		}
	}
	q.avail += uint16(len(chains))
	q.inflight += len(chains)
	return len(chains), err
}

// single handles a chain of one descriptor in mapped memory, most of them are, and says
// whether it is one.
func (q *Queue) single(c *Chain, n, flags uint64) bool {
	n = uint64(uint32(n))
	if flags&(spec.DescNext|spec.DescIndirect) != 0 || n == 0 {
		return false
	}
	if flags&spec.DescWrite != 0 {
		b, err := q.r.Bytes(c.lo, n, dma.ProtWrite)
		if err != nil {
			return false
		}
		c.Writable, c.WritableLen = append(c.Writable, b), uint32(n)
		return true
	}
	b, err := q.r.Bytes(c.lo, n, dma.ProtRead)
	if err != nil {
		return false
	}
	c.Readable, c.ReadableLen = append(c.Readable, b), uint32(n)
	return true
}

// walkSplit follows a chain from its first descriptor, which is in c. Descriptors in the
// ring's table may be followed by one that refers to an indirect table (2.7.5.3.2).
func (q *Queue) walkSplit(c *Chain) error {
	table, indirect := q.desc, false
	d := spec.DescOf(c.lo, c.hi)
	buffers, steps := 0, 1 // steps in this table
	for {
		if d.Flags&spec.DescIndirect != 0 {
			switch {
			case !q.cfg.Indirect:
				return &Error{Rule: ErrIndirect}
			case indirect:
				return &Error{Rule: ErrNested}
			case d.Flags&spec.DescNext != 0:
				return &Error{Rule: ErrIndirectNext}
			}
			t, err := q.table(d.Addr, d.Len)
			if err != nil {
				return err
			}
			table, indirect, steps = t, true, 1
			d = spec.DescOf(dma.Load64(table, 0), dma.Load64(table, 8))
			continue
		}
		if buffers++; buffers > q.cfg.MaxChain {
			return &Error{Rule: ErrTooLong}
		}
		if err := q.add(c, d.Addr, d.Len, d.Flags); err != nil {
			return err
		}
		if d.Flags&spec.DescNext == 0 {
			return nil
		}
		at := spec.DescSize * int(d.Next)
		if at >= len(table) {
			return &Error{Rule: ErrNext}
		}
		if steps++; steps > len(table)/spec.DescSize {
			return &Error{Rule: ErrLoop}
		}
		if q.mem != nil && !indirect {
			if err := q.readDesc(int(d.Next)); err != nil {
				return err
			}
		}
		d = spec.DescOf(dma.Load64(table, at), dma.Load64(table, at+8))
	}
}

func (q *Queue) publishSplit() bool {
	if q.mem != nil {
		n, err := q.sendSplit()
		if err != nil {
			q.broke(err)
			return false
		}
		err = q.readWish()
		return q.publishedSplit(n) || err != nil
	}
	mask, old := q.size-1, q.used
	at := old
	for _, e := range q.pushed {
		binary.LittleEndian.PutUint64(q.device[spec.UsedRing+spec.UsedEntrySize*int(at&mask):], usedElement(e))
		at += entrySkip(e)
	}
	// The fence: the driver asks for interrupts, then looks at the index.
	dma.Store16(q.device, spec.UsedIndex, at)
	n := int(at - old)
	q.wrote(spec.UsedIndex, 2)
	first := min(n, int(q.size-old&mask))
	q.wrote(spec.UsedRing+spec.UsedEntrySize*int(old&mask), spec.UsedEntrySize*first)
	q.wrote(spec.UsedRing, spec.UsedEntrySize*(n-first))
	return q.publishedSplit(uint16(n))
}

// usedElement is what the used ring says of an entry: head and length.
func usedElement(e uint64) uint64 { return e &^ (0xffff << 16) }

// publishedSplit says whether the driver wants an interrupt for the n chains that were just
// published.
func (q *Queue) publishedSplit(n uint16) bool {
	old := q.used
	q.used += n
	q.inflight -= int(n)
	q.pushed, q.joins = q.pushed[:0], false
	if q.cfg.EventIdx {
		event := dma.Load16(q.driver, spec.UsedEventOffset(q.size))
		return spec.NeedEvent(event, q.used, old)
	}
	return dma.Load16(q.driver, spec.AvailFlags)&spec.AvailNoInterrupt == 0
}

// wrote tells the dirty log of n bytes at off in the device area.
func (q *Queue) wrote(off, n int) { q.r.Wrote(q.cfg.Device+uint64(off), uint64(n)) }

func (q *Queue) armSplit() bool {
	off, v := spec.UsedFlags, uint16(0)
	if q.cfg.EventIdx {
		off, v = spec.AvailEventOffset(q.size), q.avail
	}
	if q.mem != nil {
		if err := q.write16(off, v); err != nil {
			q.remote.unarmed = err
			return true
		}
		return q.Available() > 0
	}
	dma.Store16(q.device, off, v)
	q.wrote(off, 2)
	return q.availableSplit() > 0
}

// disarmSplit has nothing to do with EVENT_IDX: the event index stays behind.
func (q *Queue) disarmSplit() {
	switch {
	case q.cfg.EventIdx:
	case q.mem != nil:
		_ = q.write16(spec.UsedFlags, spec.UsedNoNotify) // or notifications come
	default:
		dma.StoreRelease16(q.device, spec.UsedFlags, spec.UsedNoNotify)
		q.wrote(spec.UsedFlags, 2)
	}
}

func (q *Queue) availableSplit() int {
	return int(dma.Load16(q.driver, spec.AvailIndex) - q.avail)
}
