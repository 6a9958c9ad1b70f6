package nvmeconformance

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// queue is a queue pair; its numbers are the same.
type queue struct {
	id             uint16
	sqSize, cqSize uint32
	sq, cq         []byte
	sqAt, cqAt     uint64
	tail, head     uint32
	phase          bool // of entries that are new
	sqid           uint16
	cid            uint16
	early          []completion // taken while another one was waited for
}

type completion = spec.CompletionEntry

func (t *T) newQueue(id uint16, sqSize, cqSize uint32) *queue {
	q := &queue{id: id, sqid: id, sqSize: sqSize, cqSize: cqSize, phase: true}
	q.sq, q.sqAt = t.alloc(int(sqSize) * spec.SubmissionEntrySize)
	q.cq, q.cqAt = t.alloc(int(cqSize) * spec.CompletionEntrySize)
	return q
}

// newIOQueue creates a pair of queues.
func (t *T) newIOQueue(id uint16, size uint32) *queue {
	q := t.newQueue(id, size, size)
	t.must("Create I/O Completion Queue", t.do(t.admin, createCQ(id, size, q.cqAt, contiguous)))
	t.must("Create I/O Submission Queue", t.do(t.admin, createSQ(id, size, q.sqAt, contiguous, id)))
	t.clearShadow(q)
	return q
}

// place writes a command to the queue without ringing; it returns the command identifier.
func (t *T) place(q *queue, cmd *spec.SubmissionEntry) uint16 {
	q.cid++
	t.placeAs(q, cmd, q.cid)
	return q.cid
}

func (t *T) placeAs(q *queue, cmd *spec.SubmissionEntry, cid uint16) {
	e := *cmd
	e.CID = cid
	e.Put(q.sq[q.tail*spec.SubmissionEntrySize:])
	if q.tail++; q.tail == q.sqSize {
		q.tail = 0
	}
}

func (t *T) submit(q *queue, cmd *spec.SubmissionEntry) uint16 {
	cid := t.place(q, cmd)
	t.ringTail(q)
	return cid
}

func (t *T) ringTail(q *queue) { t.ring(2*int(q.sqid), q.tail) }
func (t *T) ringHead(q *queue) { t.ring(2*int(q.id)+1, q.head) }

// ring writes the doorbell of a number, counting from those of the admin queue.
func (t *T) ring(n int, v uint32) {
	off := n * t.cap.DoorbellStride()
	if t.shadow != nil && n > 1 && off+4 <= pageSize {
		old := dma.Load32(t.shadow, off)
		dma.Store32(t.shadow, off, v)
		if event := dma.Load32(t.event, off); uint16(v-event-1) >= uint16(v-old) {
			return // Base 2.0, annex B.5: the event index was not passed
		}
	}
	t.ringRegister(off, v)
}

// ringRegister writes the register itself.
func (t *T) ringRegister(off int, v uint32) {
	at := spec.RegDoorbells + uint64(off)
	if t.bell != nil && at+4 <= t.bell.Offset+t.bell.Size() {
		t.bell.Store32(at, v)
		return
	}
	t.write32(at, v)
}

// clearShadow is what a host does for a new queue.
func (t *T) clearShadow(q *queue) {
	if t.shadow == nil {
		return
	}
	stride := t.cap.DoorbellStride()
	for _, off := range []int{2 * int(q.id) * stride, (2*int(q.id) + 1) * stride} {
		if off+4 <= pageSize {
			dma.Store32(t.shadow, off, 0)
			dma.Store32(t.event, off, 0)
		}
	}
}

// poll takes the next completion if there is one, and gives the entry back.
func (t *T) poll(q *queue) (completion, bool) {
	c, ok := t.peek(q)
	if ok {
		t.take(q)
		t.ringHead(q)
	}
	return c, ok
}

// peek looks at the next completion.
func (t *T) peek(q *queue) (completion, bool) {
	var c completion
	at := int(q.head * spec.CompletionEntrySize)
	hi := dma.Load64(q.cq, at+8)
	if hi>>48&1 == 1 != q.phase {
		return c, false
	}
	c.SetWords(binary.LittleEndian.Uint64(q.cq[at:]), hi)
	return c, true
}

// take moves on by one entry.
func (t *T) take(q *queue) {
	if q.head++; q.head == q.cqSize {
		q.head, q.phase = 0, !q.phase
	}
}

// result waits for the completion of a command.
func (t *T) result(q *queue, cid uint16) (c completion) {
	t.await("the completion of a command", func() bool {
		var ok bool
		c, ok = t.arrived(q, cid)
		return ok
	})
	return c
}

// arrived says whether a command has completed.
func (t *T) arrived(q *queue, cid uint16) (completion, bool) {
	for i, c := range q.early {
		if c.CID == cid {
			q.early = append(q.early[:i], q.early[i+1:]...)
			return c, true
		}
	}
	for {
		c, ok := t.poll(q)
		if !ok || c.CID == cid {
			return c, ok
		}
		q.early = append(q.early, c)
	}
}

// do executes a command.
func (t *T) do(q *queue, cmd *spec.SubmissionEntry) completion {
	if q == t.admin && changes(cmd.Opcode) {
		t.dirty = true
	}
	return t.result(q, t.submit(q, cmd))
}

// changes says whether an admin command may change what the next check sees.
func changes(opcode uint8) bool {
	switch opcode {
	case spec.AdminGetLogPage, spec.AdminIdentify, spec.AdminGetFeatures, spec.AdminAbort, spec.AdminKeepAlive:
		return false
	}
	return true
}

// must ends the check if a command that it builds upon fails.
func (t *T) must(what string, c completion) completion {
	if !c.Status.OK() {
		t.fatalf("%s completes with %s", what, describe(c.Status))
	}
	return c
}

// expect executes an admin command and checks the status.
func (t *T) expect(what string, cmd *spec.SubmissionEntry, want spec.Status) completion {
	c := t.do(t.admin, cmd)
	t.status(what, c, want)
	return c
}

// expectIO executes an I/O command and checks the status.
func (t *T) expectIO(what string, cmd *spec.SubmissionEntry, want spec.Status) completion {
	c := t.do(t.io, cmd)
	t.status(what, c, want)
	return c
}

// fence executes a command after which everything that was to happen before has.
func (t *T) fence() { t.must("Get Features", t.do(t.admin, getFeature(spec.FeatNumberOfQueues, 0, 0))) }
