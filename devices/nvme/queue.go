package nvme

import (
	"sync"
	"sync/atomic"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/irq"
)

// ring is the memory of a queue, physically contiguous (CAP.CQR), and what tells how
// far the host is. It is translated once for each state of the memory table.
type ring struct {
	id        uint16
	size      uint32 // entries
	entrySize uint32
	base      uint64 // address of entry 0
	prot      dma.Prot
	doorbell  int // offset of its doorbell in the doorbell page and the shadow buffers

	mem   []byte // all of it, nil if it is not in one mapped region
	door  []byte // 4 bytes: the doorbell, or its shadow in guest memory
	event []byte // 4 bytes: the event index in guest memory, nil without shadow
	// reader is what translated, and logs what is written later; eventIOVA is where event is.
	reader    *dma.Reader
	eventIOVA uint64
	// eventAt is where the host was when the event index was moved last.
	eventAt uint32

	// looked is what the doorbell register said when it was looked at last, for queues
	// that doorbellWatch looks after.
	looked atomic.Uint32
}

// look reads the doorbell register.
func (r *ring) look(page []byte) uint32 {
	v := dma.Load32(page, r.doorbell)
	r.looked.Store(v)
	return v
}

// bytes is the size of the ring in bytes.
func (r *ring) bytes() uint64 { return uint64(r.size) * uint64(r.entrySize) }

func (r *ring) next(i uint32) uint32 {
	if i++; i == r.size {
		return 0
	}
	return i
}

// distance is the number of entries from a to b, both below size.
func (r *ring) distance(a, b uint32) uint32 {
	if b >= a {
		return b - a
	}
	return b + r.size - a
}

// hush moves the event index to just behind position i, where the host is: it then
// rings the register only after a whole round of the queue.
func (r *ring) hush(i uint32) {
	r.eventAt = i
	if i == 0 {
		i = r.size
	}
	dma.StoreRelease32(r.event, 0, i-1)
	r.reader.Wrote(r.eventIOVA, 4)
}

// expect asks for the doorbell when the host passes position i.
func (r *ring) expect(i uint32) {
	dma.Store32(r.event, 0, i)
	r.reader.Wrote(r.eventIOVA, 4)
}

// entry is the memory of entry i, nil if it cannot be reached. Use it inside a
// section of the reader.
func (r *ring) entry(reader *dma.Reader, i uint32) []byte {
	if r.mem == nil {
		return r.find(reader, i)
	}
	return r.mem[i*r.entrySize:][:r.entrySize]
}

// find is entry for a ring that is not in one mapped region.
func (r *ring) find(reader *dma.Reader, i uint32) []byte {
	b, err := reader.Bytes(r.base+uint64(i)*uint64(r.entrySize), uint64(r.entrySize), r.prot)
	if err != nil {
		return nil
	}
	return b
}

// subQueue is an I/O submission queue. Once it is published only id and size are
// read by others than the owner of its completion queue.
type subQueue struct {
	ring
	cq       *compQueue
	priority priority // QPRIO
	head     uint32   // next entry to fetch
	fetched  uint32   // commands in the batch of the group
	badTail  uint32   // last invalid tail that was reported; none is size or above otherwise

	mu       sync.Mutex // of head and what follows, while a messenger runs the queue
	free     []*command
	flying   flight        // commands fetched and not completed, of those that outlive a batch
	inflight uint32        // their number
	drained  chan struct{} // closed when inflight falls to 0, if the queue is being deleted
	deleted  atomic.Bool   // what has not begun is not worth beginning
}

func newSubQueue(h *host, id uint16, size uint32, base uint64, cq *compQueue) *subQueue {
	return &subQueue{
		ring: ring{
			id: id, size: size, entrySize: spec.SubmissionEntrySize, base: base,
			prot: dma.ProtRead, doorbell: sqDoorbell(id), door: h.c.doorbells.register(sqDoorbell(id)),
		},
		cq: cq,
	}
}

// take gives a command that is not in use.
func (q *subQueue) take() *command {
	if n := len(q.free); n > 0 {
		c := q.free[n-1]
		q.free = q.free[:n-1]
		return c
	}
	c := newCommand()
	c.queue = q
	return c
}

// mostInFlight is how many commands may be in flight when the last of them is fetched: one less
// than there are entries, as it may be the first half of a pair and bring the second one along.
func (q *subQueue) mostInFlight() uint32 { return q.size - 1 }

// start counts c, which take gave, among those in flight.
func (q *subQueue) start(c *command) {
	q.inflight++
	q.flying.add(c)
}

// end puts a command back.
func (q *subQueue) end(c *command) {
	c.flight.remove()
	c.first, c.second = nil, nil
	q.free = append(q.free, c)
	q.inflight--
	if q.inflight == 0 && q.drained != nil {
		close(q.drained)
		q.drained = nil
	}
}

// outcome is the status of a backend's result.
func (q *subQueue) outcome(op block.Op, err error) spec.Status {
	if err == nil {
		return spec.Success
	}
	return q.cq.h.outcome(op, err)
}

// compQueue is a completion queue. Its owner, a group or a messenger, has the
// submission queues attached to it as well.
type compQueue struct {
	ring
	h        *host
	head     uint32 // as the host said last
	tail     uint32 // next entry to post
	used     uint32 // entries posted and not yet consumed, as far as known
	reserved uint32 // entries that the batch of the group may need
	phase    uint64 // of the entries to post: 0, or 1 in the place of the phase tag

	vector    uint16
	interrupt bool   // IEN
	signalled uint32 // tail up to which interrupts were raised, or are delayed
	polled    uint32 // rounds in a row at whose end the host had consumed everything
	irqs      [irq.NumIndexes]*irq.Vector

	sqs     []*subQueue // of the control goroutine, and the owner while it runs
	waiting waitList    // completed commands that found no room
	pin     pinState
	badHead uint32
	posted  bool // something was posted since the last interrupt

	// blocked: the owner waits for the host to make room; the doorbell then wakes it.
	blocked atomic.Bool
	done    *doneList

	group     *group // its owner, one of the two
	messenger *messenger
	owner     atomic.Pointer[owner]
}

// owner is what runs a completion queue and its submission queues.
type owner struct {
	kick     func(*subQueue) // the doorbell of the queue was rung; nil: that of the completion queue
	messages bool            // it is a messenger
}

const phaseTag = 1 << 48 // in the upper half of an entry

func newCompQueue(h *host, id uint16, size uint32, base uint64) *compQueue {
	q := &compQueue{
		ring: ring{
			id: id, size: size, entrySize: spec.CompletionEntrySize, base: base,
			prot: dma.ProtWrite, doorbell: cqDoorbell(id), door: h.c.doorbells.register(cqDoorbell(id)),
		},
		h: h, phase: phaseTag,
	}
	return q
}

// kick tells the owner that a doorbell was rung. Any goroutine.
func (q *compQueue) kick(sq *subQueue) {
	if o := q.owner.Load(); o != nil {
		o.kick(sq)
	}
}

// room is the number of entries that can be posted, for a caller that wants n.
func (q *compQueue) room(n uint32) uint32 {
	if r := q.size - 1 - q.used; r >= n {
		return r
	}
	q.consume(dma.Load32(q.door, 0))
	if q.event != nil && !q.blocked.Load() {
		// The head cannot pass this before the next look, see ring.hush.
		q.hush(q.head)
	}
	return q.size - 1 - q.used
}

// place is the entry k places behind the tail.
func (q *compQueue) place(k uint32) uint32 {
	if k += q.tail; k >= q.size {
		return k - q.size
	}
	return k
}

// consume takes the head that the host has written: it must lie between the old one
// and the tail.
func (q *compQueue) consume(head uint32) {
	if head == q.head {
		return
	}
	if head >= q.size || q.distance(q.head, head) > q.used {
		if head != q.badHead {
			q.badHead = head
			q.h.raise(eventInvalidTail, q.id)
		}
		return
	}
	q.used -= q.distance(q.head, head)
	q.head, q.badHead = head, head
}

// word is the upper half of the next entry; the lower half is the command specific
// result, which no I/O command has.
func (q *compQueue) word(sq *subQueue, cid uint16, st spec.Status) uint64 {
	return uint64(sq.head) | uint64(sq.id)<<16 | uint64(cid)<<32 | uint64(st)<<49 | q.phase
}

// advance moves the tail past an entry that was posted.
func (q *compQueue) advance() {
	q.used++
	q.posted = true
	if q.tail++; q.tail == q.size {
		q.tail = 0
		q.phase ^= phaseTag
	}
}

// post publishes an entry in e, the memory at the tail.
func (q *compQueue) post(e []byte, sq *subQueue, cid uint16, st spec.Status) {
	dma.Publish16(e, 0, q.word(sq, cid, st))
	q.reader.Wrote(q.base+uint64(q.tail)*spec.CompletionEntrySize, spec.CompletionEntrySize)
	q.advance()
}

// publish posts entries from private memory to a queue, wherever that is: b holds
// whole entries that do not wrap around and begin at entry first. It is the slow
// way, for goroutines that may block.
func (h *host) publish(r *dma.Reader, q *ring, first uint32, b []byte) error {
	iova := q.base + uint64(first)*uint64(q.entrySize)
	if err := publishMapped(r, iova, b); err != dma.ErrMessage {
		return err
	}
	return h.writeDMA(iova, b)
}

func publishMapped(r *dma.Reader, iova uint64, b []byte) error {
	defer r.Exit()
	r.Enter()
	for ; len(b) > 0; iova, b = iova+spec.CompletionEntrySize, b[spec.CompletionEntrySize:] {
		e, err := r.Bytes(iova, spec.CompletionEntrySize, dma.ProtWrite)
		if err != nil {
			return err
		}
		dma.Publish16(e, dma.Load64(b, 0), dma.Load64(b, 8))
	}
	return nil
}
