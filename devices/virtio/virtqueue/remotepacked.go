package virtqueue

import (
	"encoding/binary"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// fetchPacked is takePacked by message. A message has no order inside: of a descriptor that
// just becomes available it can bring the new flags and an old address. So flags are read
// first, and then, in another message, what belongs to those that are available. A batch
// ends with the descriptors of the first message.
func (q *Queue) fetchPacked(chains []Chain) (n int, err error) {
	w := window{int(q.avail), min(int(q.avail)+readAhead, int(q.size))}
	flags := q.remote.flags[:spec.DescSize*(w.to-w.from)]
	if err := q.read(q.cfg.Desc+spec.DescSize*uint64(w.from), flags); err != nil {
		return 0, err
	}
	q.remote.fresh = window{}
	at, wrap, room := q.avail, q.availWrap, int(q.size)-q.inflight
	for size := 0; n < len(chains) && size < maxCopied && q.walked <= maxWalked && wrap == q.availWrap && w.holds(int(at)); n++ {
		if !available(dma.Load64(flags, spec.DescSize*(int(at)-w.from)+8), wrap) {
			break
		}
		c := &chains[n]
		c.at = spec.Position(at, wrap)
		if err = q.fetchPackedChain(c, int(at)); err != nil {
			break
		}
		if room -= int(c.descs); room < 0 {
			err = &Error{Rule: ErrIndex, Len: uint64(c.descs)}
			break
		}
		at, wrap = q.advance(at, wrap, c.descs)
		size += len(c.copies)
	}
	q.tookPacked(chains[:n])
	q.remote.taken += n
	return n, fail(err, at)
}

func (q *Queue) fetchPackedChain(c *Chain, at int) error {
	if err := q.readDesc(at); err != nil {
		return err
	}
	c.reset()
	c.segs = c.segs[:0]
	c.lo, c.hi = dma.Load64(q.desc, spec.DescSize*at), dma.Load64(q.desc, spec.DescSize*at+8)
	c.id, c.descs = uint16(c.hi>>32), 1
	var err error
	if c.hi>>48&spec.DescNext != 0 {
		err = q.walkPacked(c)
	} else {
		err = q.onePacked(c)
	}
	if err != nil {
		return err
	}
	return q.copyIn(c)
}

// sendPacked writes used descriptors, the flags of the first one last.
func (q *Queue) sendPacked() error {
	b := q.remote.word[:]
	at, wrap := q.used, q.usedWrap
	for i, e := range q.pushed {
		binary.LittleEndian.PutUint64(b, usedWord(e, wrap))
		part := b
		if i == 0 {
			part = b[:6] // all but the flags
		}
		if err := q.write(q.cfg.Desc+spec.DescSize*uint64(at)+8, part); err != nil {
			return err
		}
		at, wrap = q.advance(at, wrap, entrySkip(e))
	}
	binary.LittleEndian.PutUint64(b, usedWord(q.pushed[0], q.usedWrap))
	return q.write(q.cfg.Desc+spec.DescSize*uint64(q.used)+14, b[6:])
}
