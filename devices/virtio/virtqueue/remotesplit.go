package virtqueue

import (
	"encoding/binary"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// lookSplit reads what of the available ring the next n chains need.
func (q *Queue) lookSplit(n int) error {
	q.remote.fresh = window{}
	if err := q.readDriver(spec.AvailFlags, 4); err != nil {
		return err
	}
	n = min(n, q.availableSplit(), int(q.size))
	from := int(q.avail & (q.size - 1))
	first := min(n, int(q.size)-from)
	for _, w := range [2]window{{from, from + first}, {0, n - first}} {
		if w.from == w.to {
			continue
		}
		if err := q.readDriver(spec.AvailRing+spec.AvailEntrySize*w.from, spec.AvailEntrySize*(w.to-w.from)); err != nil {
			return err
		}
	}
	return nil
}

// sendSplit writes used elements and then the index.
func (q *Queue) sendSplit() error {
	mask, at := int(q.size-1), int(q.used)
	for rest := q.pushed; len(rest) > 0; {
		i := at & mask
		n := min(len(rest), int(q.size)-i)
		b := q.scratch[:0]
		for _, e := range rest[:n] {
			b = binary.LittleEndian.AppendUint64(b, e)
		}
		q.scratch = b
		if err := q.write(q.cfg.Device+spec.UsedRing+spec.UsedEntrySize*uint64(i), b); err != nil {
			return err
		}
		at, rest = at+n, rest[n:]
	}
	return q.write16(spec.UsedIndex, uint16(at))
}

// fetchSplit is the second half of takeSplit: the heads of the chains are known, and err
// is about the one after them.
func (q *Queue) fetchSplit(chains []Chain, err error) (int, error) {
	n, size := 0, 0
	for ; n < len(chains) && size < maxCopied; n++ {
		c := &chains[n]
		if e := q.fetchChain(c); e != nil {
			err = fail(e, (q.avail+uint16(n))&(q.size-1))
			break
		}
		size += len(c.copies)
	}
	if n < len(chains) && size >= maxCopied {
		err = nil // comes up again
	}
	q.avail += uint16(n)
	q.inflight += n
	q.remote.taken += n
	return n, err
}

func (q *Queue) fetchChain(c *Chain) error {
	c.reset()
	c.segs = c.segs[:0]
	if err := q.readDesc(int(c.id)); err != nil {
		return err
	}
	at := spec.DescSize * int(c.id)
	c.lo, c.hi = dma.Load64(q.desc, at), dma.Load64(q.desc, at+8)
	if err := q.walkSplit(c); err != nil {
		return err
	}
	return q.copyIn(c)
}
