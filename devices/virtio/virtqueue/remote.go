package virtqueue

import (
	"encoding/binary"
	"slices"

	"vfiouser/devices/virtio/spec"
)

// Memory is guest memory reached by calls that may block, mapped or not. An error means
// that nothing is known of what was read or written.
type Memory interface {
	ReadDMA(iova uint64, p []byte) error
	WriteDMA(iova uint64, p []byte) error
}

// remote is what access by message needs. The queue's desc and driver are then private
// copies of the guest's areas, of which the parts that are needed are read anew in each
// Take; device is not used.
type remote struct {
	taken   int   // chains that were taken by message and not pushed
	unarmed error // why Arm has failed, for the next Take

	desc, driver []byte
	fresh        window  // descriptors that were read in this Take
	flags        []byte  // packed: descriptors, of which the flags were read
	word         [8]byte // what is being written
}

// window is a range of indexes, to excluded.
type window struct{ from, to int }

func (w window) holds(i int) bool { return w.from <= i && i < w.to }

const (
	// readAhead is the number of descriptors read at once: most chains of a batch lie beside
	// each other.
	readAhead = 32
	// maxCopied is the number of bytes after which a batch ends.
	maxCopied = 4 << 20
	// keptCopies bounds the buffer that a Chain keeps, in bytes.
	keptCopies = 128 << 10
)

// SetRemote makes the queue reach all guest memory with m, from now on: every method may
// block, and must not be called inside a section of a dma.Reader. What was taken before can
// still be pushed, but its buffers are no longer to be used once the section has ended.
func (q *Queue) SetRemote(m Memory) {
	q.mem, q.r, q.device = m, nil, nil
	if areas := q.cfg.areas(); q.remote.desc == nil {
		q.remote.desc = make([]byte, areas[0].bytes)
		q.remote.driver = make([]byte, areas[1].bytes)
		q.remote.flags = make([]byte, readAhead*spec.DescSize)
	}
	q.desc, q.driver = q.remote.desc, q.remote.driver
}

func (q *Queue) read(iova uint64, p []byte) error {
	if err := q.mem.ReadDMA(iova, p); err != nil {
		return &Error{Rule: ErrMemory, Cause: err, Addr: iova, Len: uint64(len(p))}
	}
	return nil
}

func (q *Queue) write(iova uint64, p []byte) error {
	if err := q.mem.WriteDMA(iova, p); err != nil {
		return &Error{Rule: ErrMemory, Cause: err, Addr: iova, Len: uint64(len(p))}
	}
	return nil
}

// readDriver brings n bytes of the driver area up to date.
func (q *Queue) readDriver(off, n int) error {
	return q.read(q.cfg.Driver+uint64(off), q.driver[off:off+n])
}

// readWish reads what says whether the driver wants an interrupt. If it fails what was
// published is published all the same, and an interrupt too many does no harm.
func (q *Queue) readWish() error {
	switch {
	case q.cfg.Packed:
		return q.readDriver(0, spec.EventSize)
	case q.cfg.EventIdx:
		return q.readDriver(spec.UsedEventOffset(q.size), 2)
	default:
		return q.readDriver(spec.AvailFlags, 2)
	}
}

// readDesc sees to it that descriptor i was read in this Take.
func (q *Queue) readDesc(i int) error {
	if q.remote.fresh.holds(i) {
		return nil
	}
	w := window{i, min(i+readAhead, int(q.size))}
	if err := q.read(q.cfg.Desc+spec.DescSize*uint64(w.from), q.desc[spec.DescSize*w.from:spec.DescSize*w.to]); err != nil {
		return err
	}
	q.remote.fresh = w
	return nil
}

// copyIn makes the buffers of a chain whose segments were collected, and reads those that
// the device reads.
func (q *Queue) copyIn(c *Chain) error {
	n := int(c.ReadableLen) + int(c.WritableLen)
	if n > q.cfg.MaxBytes {
		return &Error{Rule: ErrTooLong, Len: uint64(n)}
	}
	if cap(c.copies) > keptCopies && n <= keptCopies {
		c.copies = nil
	}
	c.copies = slices.Grow(c.copies[:0], n)[:n]
	// Writable buffers are cleared: nothing of another chain gets to the guest.
	clear(c.copies[c.ReadableLen:])
	rest, left := c.copies, int(c.ReadableLen)
	for _, s := range c.segs {
		b := rest[:s.n:s.n]
		rest = rest[s.n:]
		if left == 0 {
			c.Writable = append(c.Writable, b)
			continue
		}
		if err := q.read(s.addr, b); err != nil {
			return err
		}
		c.Readable = append(c.Readable, b)
		left -= int(s.n)
	}
	c.copied = true
	return nil
}

// copyOut writes to the guest what the device wrote to a chain that was taken by message.
func (q *Queue) copyOut(c *Chain, written uint32) {
	written = min(written, c.WritableLen)
	q.remote.taken--
	c.copied = false
	b, segs := c.copies[c.ReadableLen:], c.segs[len(c.Readable):]
	for ; written > 0; segs = segs[1:] {
		n := min(written, segs[0].n)
		if err := q.write(segs[0].addr, b[:n]); err != nil {
			q.broke(err)
			return
		}
		b, written = b[n:], written-n
	}
}

// broke keeps the first error that broke the queue.
func (q *Queue) broke(err error) {
	if q.err == nil {
		q.err = err
	}
}

// look brings up to date what Available looks at.
func (q *Queue) look() error {
	if q.cfg.Packed {
		at := spec.DescSize * int(q.avail)
		return q.read(q.cfg.Desc+uint64(at), q.desc[at:at+spec.DescSize])
	}
	return q.readDriver(spec.AvailFlags, 4)
}

// write16 writes to the device area.
func (q *Queue) write16(off int, v uint16) error {
	b := q.remote.word[:2]
	binary.LittleEndian.PutUint16(b, v)
	return q.write(q.cfg.Device+uint64(off), b)
}
