package nvme

import (
	"context"
	"encoding/binary"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// messenger runs a completion queue and its submission queues if any of their memory
// is reached by message. A goroutine for each submission queue fetches commands and
// gives them to the couriers, one goroutine posts completions; all of them wait for
// messages, which a worker must not. While it is stopped the control goroutine owns
// the queues.
type messenger struct {
	h        *host
	cq       *compQueue
	done     doneList
	kicked   chan struct{} // for the goroutine that posts
	feeders  []*feeder
	inflight atomic.Int32 // commands fetched and not collected
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// maxFetched bounds the commands of one queue that are fetched and not completed: a
// reset waits for all of them.
const maxFetched = 128

// maxFeed is the number of entries that go with one message.
const maxFeed = 32

// feeder is the goroutine of one submission queue.
type feeder struct {
	m      *messenger
	q      *subQueue
	kicked chan struct{}
	buf    [maxFeed * spec.SubmissionEntrySize]byte
	after  [spec.SubmissionEntrySize]byte // behind buf, see lookAhead
	stats  ioStats
}

func newMessenger(h *host, q *compQueue) *messenger {
	m := &messenger{h: h, cq: q, kicked: make(chan struct{}, 1)}
	m.done.wake = func() { notify(m.kicked) }
	m.done.pushed = make(chan struct{}, 1)
	q.messenger, q.done = m, &m.done
	return m
}

// start lets the queues run.
func (m *messenger) start() {
	ctx, cancel := context.WithCancel(m.h.s.Context())
	m.cancel = cancel
	m.feeders = nil // a new list: a late kick may still have the old one
	for _, q := range m.cq.sqs {
		m.feeders = append(m.feeders, &feeder{m: m, q: q, kicked: make(chan struct{}, 1)})
	}
	feeders := m.feeders
	// Before anybody looks and then waits for a kick.
	m.cq.owner.Store(&owner{messages: true, kick: func(q *subQueue) { m.kick(feeders, q) }})
	for _, f := range feeders {
		m.wg.Go(func() { m.run(ctx, f.kicked, f.step) })
	}
	p := &poster{m: m, reader: m.h.s.Memory().NewReader()}
	m.wg.Go(func() {
		defer p.reader.Close()
		m.run(ctx, m.kicked, p.step)
	})
}

// stop ends the goroutines and waits for what is in flight; completions that were not
// posted wait in the queue. Messages on their way are not cancelled: the client may
// have seen them.
func (m *messenger) stop() {
	if m.cancel == nil {
		return
	}
	m.cq.owner.Store(nil)
	m.cancel()
	m.wg.Wait()
	m.cancel = nil
	for m.inflight.Load() > 0 {
		m.done.wait()
		m.collect()
	}
}

// collect moves completions to the list of those that wait to be posted. A failure is in
// the error log before the host can see it.
func (m *messenger) collect() {
	for c, _ := m.done.take(); c != nil; {
		next := c.next
		if !c.result.OK() {
			c.result = m.h.logFailure(c.queue.id, &c.entry, c.result)
		}
		m.cq.waiting.add(c)
		m.inflight.Add(-1)
		c = next
	}
}

// kick is a doorbell. Any goroutine.
func (m *messenger) kick(feeders []*feeder, q *subQueue) {
	for _, f := range feeders {
		if q == nil || f.q == q {
			notify(f.kicked)
		}
	}
	notify(m.kicked)
}

// run calls step until it says that there is nothing to do, then waits for a kick.
func (m *messenger) run(ctx context.Context, kicked <-chan struct{}, step func() bool) {
	defer func() {
		if v := recover(); v != nil {
			m.h.fault(v, debug.Stack())
		}
	}()
	debug.SetPanicOnFault(true)
	for ctx.Err() == nil {
		if step() {
			continue
		}
		select {
		case <-kicked:
		case <-ctx.Done():
		}
	}
}

// step fetches a batch of commands; false means that the queue is empty, or full of
// commands in flight, or cannot be reached, and that a kick will come.
func (f *feeder) step() bool {
	m, q := f.m, f.q
	tail, err := m.peek(&q.ring)
	if err == nil && tail == q.head && m.h.shadow.set {
		// Ask for the doorbell, then look once more.
		if err = m.expect(&q.ring, tail); err == nil {
			tail, err = m.peek(&q.ring)
		}
	}
	if err != nil || tail == q.head {
		return false
	}
	if tail >= q.size {
		if tail != q.badTail {
			q.badTail = tail
			m.h.raise(eventInvalidTail, q.id)
		}
		return false
	}
	q.badTail = tail
	n := min(q.distance(q.head, tail), q.size-q.head, maxFeed, f.room())
	if n == 0 {
		return false // the poster kicks
	}
	b := f.buf[:n*spec.SubmissionEntrySize]
	if err := m.h.readDMA(q.base+uint64(q.head)*spec.SubmissionEntrySize, b); err != nil {
		return false
	}
	if f.lookAhead(b, n, tail) != nil {
		return false
	}
	for len(b) > 0 {
		taken := int(f.begin(b, tail))
		b = b[min(taken*spec.SubmissionEntrySize, len(b)):]
	}
	m.h.c.smart.add(&f.stats)
	return true
}

// room is how many commands may be fetched.
func (f *feeder) room() uint32 {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	limit := min(f.q.mostInFlight(), maxFetched)
	return limit - min(f.q.inflight, limit)
}

// begin takes the first one of commands on its way, or the first two if they are fused. It
// returns how many.
func (f *feeder) begin(entries []byte, tail uint32) (taken uint32) {
	q, h := f.q, f.m.h
	q.mu.Lock() // to the end: an Abort must not see half of it
	defer q.mu.Unlock()
	cmd := q.take()
	cmd.entry.Get(entries)
	taken = 1
	p, st := h.c.prepare(cmd)
	if st == isFused {
		taken = q.fuse(cmd, tail, func(uint32) []byte { return f.second(entries) })
		p, st = cmd.plan, cmd.result
	}
	q.start(cmd)
	if cmd.second != nil {
		q.start(cmd.second)
	}
	for range taken {
		q.head = q.next(q.head)
	}
	f.m.inflight.Add(int32(taken))
	if st != spec.Success {
		cmd.finish(st)
		return taken
	}
	if p == planData || p == planRewrite {
		f.stats.count(cmd.request.Op, cmd.request.Length)
	}
	h.couriers.run(cmd)
	return taken
}

// lookAhead reads the entry behind those that are about to begin if it may be half of a
// pair with the last one.
func (f *feeder) lookAhead(b []byte, n, tail uint32) error {
	var last spec.SubmissionEntry
	last.Get(b[len(b)-spec.SubmissionEntrySize:])
	q := f.q
	at := (q.head + n) % q.size
	if last.Fuse() != spec.FuseFirst || at == tail {
		return nil
	}
	return f.m.h.readDMA(q.base+uint64(at)*spec.SubmissionEntrySize, f.after[:])
}

// second is the second one of entries, or what lookAhead has read if they are but one.
func (f *feeder) second(entries []byte) []byte {
	if len(entries) > spec.SubmissionEntrySize {
		return entries[spec.SubmissionEntrySize:]
	}
	return f.after[:]
}

// peek reads how far the host is with a queue.
func (m *messenger) peek(q *ring) (uint32, error) {
	s := m.h.shadow
	if !s.set {
		return q.look(m.h.c.doorbells.page), nil
	}
	var b [4]byte
	err := m.h.readDMA(s.doorbell+uint64(q.doorbell), b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

// expect asks the host to ring the doorbell when it passes index.
func (m *messenger) expect(q *ring, index uint32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], index)
	return m.h.writeDMA(m.h.shadow.events+uint64(q.doorbell), b[:])
}

// poster is the goroutine that posts completions.
type poster struct {
	m      *messenger
	reader *dma.Reader
	buf    []byte
}

// step posts completions, as far as there is room.
func (p *poster) step() bool {
	m, q := p.m, p.m.cq
	m.collect()
	pin := m.h.interrupts.pinBased()
	if pin {
		m.h.interrupts.follow(q, true)
		pin = m.h.shadow.set // then the doorbell that lowers the pin has to be asked for
	}
	if q.waiting.head == nil && !pin {
		q.blocked.Store(false)
		return false
	}
	if !p.look() {
		return false
	}
	n := min(q.size-1-q.used, q.size-q.tail, maxFeed)
	if n == 0 || q.waiting.head == nil {
		return p.await(pin)
	}
	n = p.encode(n)
	if m.h.publish(p.reader, &q.ring, q.tail, p.buf) != nil {
		return false
	}
	for range n {
		q.advance()
		c := q.waiting.remove()
		c.queue.mu.Lock()
		c.queue.end(c)
		c.queue.mu.Unlock()
	}
	m.h.interrupts.signal(q)
	for _, f := range m.feeders {
		notify(f.kicked) // it may have waited for a command to end
	}
	return true
}

// await asks for the doorbell of the queue, for room or to lower the pin, and looks
// once more.
func (p *poster) await(pin bool) bool {
	q := p.m.cq
	before := q.used
	q.blocked.Store(true)
	if p.m.h.shadow.set && p.m.expect(&q.ring, q.head) != nil || !p.look() {
		return false
	}
	if pin {
		p.m.h.interrupts.follow(q, true)
	}
	return q.used != before
}

// look reads how far the host is.
func (p *poster) look() bool {
	head, err := p.m.peek(&p.m.cq.ring)
	if err != nil {
		return false
	}
	p.m.cq.consume(head)
	return true
}

// encode puts up to n entries, which do not wrap around, into p.buf.
func (p *poster) encode(n uint32) (encoded uint32) {
	p.buf = p.buf[:0]
	for c := p.m.cq.waiting.head; c != nil && encoded < n; c = c.next {
		c.queue.mu.Lock()
		word := p.m.cq.word(c.queue, c.entry.CID, c.result)
		c.queue.mu.Unlock()
		p.buf = binary.LittleEndian.AppendUint64(p.buf, 0)
		p.buf = binary.LittleEndian.AppendUint64(p.buf, word)
		encoded++
	}
	return encoded
}
