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

// sendSplit writes used elements, those that lie side by side at once, and then the index. It
// returns by how much that grows.
func (q *Queue) sendSplit() (n uint16, err error) {
	mask, at := q.size-1, q.used
	from, b := at, q.scratch[:0]
	for i, e := range q.pushed {
		b = binary.LittleEndian.AppendUint64(b, usedElement(e))
		at += entrySkip(e)
		if entrySkip(e) == 1 && at&mask != 0 && i < len(q.pushed)-1 {
			continue
		}
		if err := q.write(q.cfg.Device+spec.UsedRing+spec.UsedEntrySize*uint64(from&mask), b); err != nil {
			return 0, err
		}
		from, b = at, b[:0]
	}
	q.scratch = b
	return at - q.used, q.write16(spec.UsedIndex, at)
}

// fetchSplit is the second half of takeSplit: the heads of the chains are known, and err
// is about the one after them.
func (q *Queue) fetchSplit(chains []Chain, err error) (int, error) {
	n, size := 0, 0
	for ; n < len(chains) && size < maxCopied && q.walked <= maxWalked; n++ {
		c := &chains[n]
		if e := q.fetchChain(c); e != nil {
			err = fail(e, (q.avail+uint16(n))&(q.size-1))
			break
		}
		size += len(c.copies)
	}
	if n < len(chains) && (size >= maxCopied || q.walked > maxWalked) {
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
