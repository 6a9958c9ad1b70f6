package virtqueue

import (
	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// Queue is the device side of a virtqueue. It is for one goroutine at a time.
type Queue struct {
	cfg  Config
	err  error // what broke the queue
	size uint16

	// Where the ring is: mapped memory that r translated, or copies of what was read by mem.
	desc, driver, device []byte
	r                    *dma.Reader
	mem                  Memory

	// Split: indexes, which count on through 65,536. Packed: places in the ring.
	avail uint16 // next to take
	used  uint16 // next to publish, where the driver looks
	// Packed: the wrap counters there.
	availWrap, usedWrap bool

	// Packed: where the chains were that were taken last, as Positions, and the place of the
	// next one in this list.
	places []uint16
	place  int

	walked   int      // descriptors that the last Take has followed, beside single ones
	pushed   []uint64 // what Publish will publish, see entry
	joins    bool     // the next chain may be told of with the last one in pushed, see join
	inflight int      // taken and not yet published: chains, or packed descriptors
	armed    bool     // the driver notifies, as far as it was told

	scratch []byte // for indirect tables that are not in one piece
	remote  remote
}

// New makes the device side of a queue that the driver has just enabled. It returns
// ErrConfig for sizes and alignments that 2.7 and 2.8.10.1 do not allow. Call Translate or
// SetRemote before anything else.
func New(cfg Config) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.defaults()
	q := &Queue{cfg: cfg, size: cfg.Size, availWrap: true, usedWrap: true, armed: true}
	q.pushed = make([]uint64, 0, cfg.Size)
	if cfg.Packed {
		q.places = make([]uint16, cfg.Size)
	}
	return q, nil
}

// Err is what broke the queue, nil while it works.
func (q *Queue) Err() error { return q.err }

// Translate finds the memory of the ring, inside a section of r. It has to be called again
// when r.Generation has changed, before anything else in that section; it also leads back
// from SetRemote. ErrRemote says that SetRemote is the only way, ErrBusy that chains which
// were taken by message have not been pushed and published, and ErrAddress (with the
// cause) that the ring is not in guest memory. An error leaves the queue as it was, but
// unusable until Translate succeeds or SetRemote is called.
func (q *Queue) Translate(r *dma.Reader) error {
	if q.remote.taken > 0 {
		return ErrBusy
	}
	q.mem, q.r = nil, r
	q.desc, q.driver, q.device = nil, nil, nil
	q.remote.unarmed = nil
	descProt := dma.ProtRead
	if q.cfg.Packed {
		descProt |= dma.ProtWrite
	}
	var found [3][]byte
	for i, prot := range [3]dma.Prot{descProt, dma.ProtRead, dma.ProtWrite} {
		a := q.cfg.areas()[i]
		b, err := r.Bytes(a.addr, a.bytes, prot)
		switch {
		case err == dma.ErrNotMapped && everywhere(r, a, prot):
			return ErrRemote
		case err != nil:
			return accessError(err, a.addr, a.bytes)
		}
		found[i] = b
	}
	q.desc, q.driver, q.device = found[0], found[1], found[2]
	return nil
}

// everywhere says whether all of an area is in mapped regions.
func everywhere(r *dma.Reader, a area, prot dma.Prot) bool {
	for addr, n := a.addr, a.bytes; n > 0; {
		b, err := r.Span(addr, n, prot)
		if err == dma.ErrMessage {
			return true
		} else if err != nil {
			return false
		}
		addr, n = addr+uint64(len(b)), n-uint64(len(b))
	}
	return true
}

// maxWalked is the number of descriptors after which a batch ends: more than a batch of the
// longest chains of a driver that means well, and as many as may be followed before somebody
// else has his turn. One chain may have more.
const maxWalked = 2048

// Take takes up to len(chains) available chains in their order; fewer if they are unusually
// long, so that it always takes about the same time. An Error is about the
// chain after the n that it gives; the queue is then broken for good, though what was taken
// may still be pushed and published. After ErrRemote and ErrMemory that chain is available
// again and nothing is lost.
func (q *Queue) Take(chains []Chain) (n int, err error) {
	switch {
	case q.err != nil:
		return 0, q.err
	case q.desc == nil:
		return 0, ErrRemote
	case q.remote.unarmed != nil:
		err, q.remote.unarmed = q.remote.unarmed, nil
		return 0, err
	}
	q.walked = 0
	switch {
	case !q.cfg.Packed:
		n, err = q.takeSplit(chains)
	case q.mem == nil:
		n, err = q.takePacked(chains)
	default:
		n, err = q.fetchPacked(chains)
	}
	if q.walked > maxWalked {
		for i := range chains[n:] {
			chains[n+i].trim()
		}
	}
	if e, ok := err.(*Error); ok && e.Rule != ErrMemory {
		q.err = err
	}
	return n, err
}

// Walked is how many descriptors the last Take has followed, beside those that are a chain
// alone.
func (q *Queue) Walked() int { return q.walked }

// Untake makes the last n chains that were taken, and not pushed, available again. Those
// Chains are void.
func (q *Queue) Untake(n int) {
	if q.cfg.Packed {
		q.untakePacked(n)
	} else {
		q.avail -= uint16(n)
		q.inflight -= n
	}
	q.remote.taken -= min(n, q.remote.taken) // they were taken after all others
}

// Push hands a chain back to the driver, with the bytes written to it, counted from the
// start of its writable buffers: what the driver relies on (2.7.8.2). Chains may be pushed
// in any order, or in the order they were taken if IN_ORDER is negotiated. The driver does
// not see it before Publish. What was taken by message is written to the guest here.
func (q *Queue) Push(c *Chain, written uint32) {
	if c.copied {
		q.copyOut(c, written)
	}
	if q.cfg.InOrder && q.join(c) {
		return
	}
	q.pushed = append(q.pushed, entry(c.id, c.descs, min(written, c.WritableLen)))
}

// join makes one used entry of chains in a row that have nothing to write, whose lengths
// say nothing: the entry names the last one, and the driver knows how many were before it
// (2.7.9, 2.8.9).
func (q *Queue) join(c *Chain) bool {
	joins := q.joins
	q.joins = c.WritableLen == 0
	if !joins || !q.joins {
		return false
	}
	last := &q.pushed[len(q.pushed)-1]
	*last = entry(c.id, entrySkip(*last)+c.descs, 0)
	return true
}

// entry is what Publish needs of a chain: what the driver is told, and how far the place for
// the next one is, in chains or packed descriptors.
func entry(id, skip uint16, written uint32) uint64 {
	return uint64(id) | uint64(skip)<<16 | uint64(written)<<32
}

func entrySkip(e uint64) uint16 { return uint16(e >> 16) }

// Publish shows the driver all that was pushed at once, and says whether it wants an
// interrupt for it.
func (q *Queue) Publish() (interrupt bool) {
	if len(q.pushed) == 0 {
		return false
	}
	if q.cfg.Packed {
		return q.publishPacked()
	}
	return q.publishSplit()
}

// Arm asks the driver to notify of the next chain that it makes available. It then looks
// again and says whether there is something already, for which no notification may come. If
// a message fails it says so too, so that Take tells the error.
func (q *Queue) Arm() (pending bool) {
	q.armed = true
	if q.cfg.Packed {
		return q.armPacked()
	}
	return q.armSplit()
}

// Disarm tells the driver that no notifications are needed. Some may come all the same.
func (q *Queue) Disarm() {
	if !q.armed {
		return
	}
	q.armed = false
	if q.cfg.Packed {
		_ = q.notify(spec.EventWord(0, spec.EventDisable)) // or notifications come
	} else {
		q.disarmSplit()
	}
}

// Available is the number of chains that can be taken as far as a quick look tells, which
// for a packed queue is no more than one. If the look itself fails it is 1, so that Take
// tells the error.
func (q *Queue) Available() int {
	if q.mem != nil {
		if q.look() != nil {
			return 1
		}
	}
	if q.cfg.Packed {
		return q.availablePacked()
	}
	return q.availableSplit()
}

// fail completes an error with the entry it is about.
func fail(err error, at uint16) error {
	if e, ok := err.(*Error); ok {
		e.At = at
	}
	return err
}
