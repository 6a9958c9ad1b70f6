package virtqueue

import (
	"math"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// Chain is what a driver made available at once: buffers to read, then buffers to write.
// It belongs to the caller, who gives the same ones to Take again and again: the slices'
// backing arrays are used again. The buffers are the guest's memory, to be used inside the
// section of Take, or private copies if they were taken by message. Buffers of no length
// are left out, so that both lists can be empty.
type Chain struct {
	Readable, Writable       [][]byte
	ReadableLen, WritableLen uint32 // bytes in all

	lo, hi uint64 // first descriptor, between the stages of Take
	id     uint16 // split: the head; packed: the buffer id
	descs  uint16 // packed: descriptors in the ring; split: 1
	at     uint16 // packed: the Position of the first

	copied bool      // the buffers are copies of segments, in copies
	copies []byte    // kept for the next chain
	segs   []segment // what copies holds, in order
}

// trim forgets the room for an unusual number of buffers, so that chains which are seldom used
// do not each keep it.
func (c *Chain) trim() {
	if cap(c.Readable) > maxWalked {
		c.Readable = nil
	}
	if cap(c.Writable) > maxWalked {
		c.Writable = nil
	}
	if cap(c.segs) > maxWalked {
		c.segs = nil
	}
}

// segment is a range of guest memory.
type segment struct {
	addr uint64
	n    uint32 // bytes
}

func (c *Chain) reset() {
	c.Readable, c.Writable = c.Readable[:0], c.Writable[:0]
	c.ReadableLen, c.WritableLen = 0, 0
	c.copied = false
}

// add appends a buffer of a chain.
func (q *Queue) add(c *Chain, addr uint64, n uint32, flags uint16) error {
	q.walked++
	if n == 0 {
		return nil
	}
	total := uint64(c.ReadableLen) + uint64(c.WritableLen) + uint64(n)
	write := flags&spec.DescWrite != 0
	switch {
	case total > math.MaxUint32:
		return &Error{Rule: ErrLength, Addr: addr, Len: total}
	case !write && c.WritableLen > 0:
		return &Error{Rule: ErrOrder, Addr: addr, Len: uint64(n)}
	case uint64(n)-1 > math.MaxUint64-addr:
		return &Error{Rule: ErrAddress, Cause: dma.ErrNotMapped, Addr: addr, Len: uint64(n)}
	}
	if q.mem != nil {
		c.segs = append(c.segs, segment{addr, n})
	} else if err := q.translate(c, addr, n, write); err != nil {
		return err
	}
	if write {
		c.WritableLen += n
	} else {
		c.ReadableLen += n
	}
	return nil
}

// translate finds the memory of a buffer.
func (q *Queue) translate(c *Chain, addr uint64, n uint32, write bool) error {
	list, prot := &c.Readable, dma.ProtRead
	if write {
		list, prot = &c.Writable, dma.ProtWrite
	}
	if b, err := q.r.Bytes(addr, uint64(n), prot); err == nil {
		*list = append(*list, b)
		return nil
	}
	// It may go on in the next regions.
	for left := uint64(n); left > 0; {
		b, err := q.r.Span(addr, left, prot)
		if err != nil {
			return accessError(err, addr, left)
		}
		if len(c.Readable)+len(c.Writable) >= q.cfg.MaxChain {
			return &Error{Rule: ErrTooLong, Addr: addr, Len: left}
		}
		*list = append(*list, b)
		addr += uint64(len(b))
		left -= uint64(len(b))
	}
	return nil
}

func accessError(err error, addr, n uint64) error {
	if err == dma.ErrMessage {
		return ErrRemote
	}
	return &Error{Rule: ErrAddress, Cause: err, Addr: addr, Len: n}
}

// table gives an indirect table of n bytes, in guest memory or as a copy.
func (q *Queue) table(addr uint64, n uint32) ([]byte, error) {
	switch {
	case n == 0 || n%spec.DescSize != 0 || int(n/spec.DescSize) > q.cfg.MaxChain:
		return nil, &Error{Rule: ErrTable, Addr: addr, Len: uint64(n)}
	case uint64(n)-1 > math.MaxUint64-addr:
		return nil, &Error{Rule: ErrAddress, Cause: dma.ErrNotMapped, Addr: addr, Len: uint64(n)}
	}
	if q.mem == nil {
		b, err := q.r.Bytes(addr, uint64(n), dma.ProtRead)
		if err == nil {
			return b, nil
		} else if err != dma.ErrNotMapped {
			return nil, accessError(err, addr, uint64(n))
		}
	}
	if cap(q.scratch) < int(n) {
		q.scratch = make([]byte, n)
	}
	t := q.scratch[:n]
	if q.mem != nil {
		return t, q.read(addr, t)
	}
	for done := 0; done < len(t); {
		b, err := q.r.Span(addr+uint64(done), uint64(len(t)-done), dma.ProtRead)
		if err != nil {
			return nil, accessError(err, addr, uint64(n))
		}
		done += dma.Copy(t[done:], b)
	}
	return t, nil
}
