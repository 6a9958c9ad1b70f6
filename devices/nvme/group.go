package nvme

import (
	"slices"
	"sync"
	"sync/atomic"

	"vfiouser/dma"
	"vfiouser/engine"
)

// group is the queues of one client that one worker polls: an engine.Source. The
// worker owns everything in it while it is attached, else the control goroutine.
type group struct {
	h      *host
	worker worker
	reader *dma.Reader
	gen    uint64 // of the memory table that the queues were translated for
	failed bool   // guest memory has gone, or a defect: do nothing any more
	done   doneList
	data   dataWalker

	cqs      []*compQueue
	active   []*subQueue // those whose memory can be reached
	outlooks []outlook   // on them, one each
	first    int         // the one that is served first in the next round
	weighted bool        // arbitration is weighted round robin, else plain
	levels   [priorities]level
	left     int64 // bytes that may still be moved in this round
	batch    batch
	pollers  pollers
	posted   []*compQueue
	inflight uint32 // commands in flight of all queues
	waiting  int    // completed commands that found no room
	stalled  atomic.Bool
	attached bool
	crowd    *atomic.Bool // there are others at the storage
	held     heldStripes

	stats ioStats // not yet in the SMART log
	busy  bool    // since it did something, until its worker sleeps

	polling sync.Mutex // held during Poll, see Subsystem.passGroups
	inRound bool       // by this group
}

func newGroup(h *host, w worker) *group {
	g := &group{h: h, worker: w, reader: h.s.Memory().NewReader()}
	g.batch.init()
	g.pollers.yield = yieldProcessor
	g.done.wake = w.Wake
	g.done.pushed = make(chan struct{}, 1)
	g.crowd = &h.c.subsystem.crowd.here
	h.c.subsystem.addGroup(g)
	return g
}

// pause takes the group from its worker; the caller then owns it.
func (g *group) pause() {
	if g.attached {
		g.worker.Detach(g)
		g.attached = false
	}
	g.pollers.clear()
}

// resume gives the group to its worker, if there is anything to poll.
func (g *group) resume() {
	g.gen = 0 // queues may have come or gone
	if !g.h.held && (len(g.cqs) > 0 || g.inflight > 0) {
		g.attached = true
		g.worker.Attach(g, engine.SourceOptions{Silent: g.h.c.cfg.Doorbells == Mmap, MaxSleep: g.h.c.cfg.IdlePoll})
	}
}

// add and remove change the queues of a paused group.
func (g *group) add(q *compQueue) {
	q.group, q.done = g, &g.done
	g.cqs = append(g.cqs, q)
	g.waiting += q.waiting.len()
	q.owner.Store(&owner{kick: func(*subQueue) { g.worker.Kick(g) }})
}

func (g *group) remove(q *compQueue) {
	g.cqs = slices.DeleteFunc(g.cqs, func(x *compQueue) bool { return x == q })
	g.posted = slices.DeleteFunc(g.posted, func(x *compQueue) bool { return x == q })
	g.waiting -= q.waiting.len()
	q.owner.Store(nil)
	q.group = nil
	g.forget()
	g.gen = 0
}

// close ends a paused group.
func (g *group) close() {
	g.rest()
	for _, q := range g.cqs {
		q.owner.Store(nil)
	}
	g.reader.Close()
	g.h.c.subsystem.removeGroup(g)
}

// Poll does one round over all queues.
func (g *group) Poll() int {
	if g.failed {
		return 0
	}
	g.polling.Lock()
	g.inRound = true
	n := g.round()
	vain := n == 0 && g.inflight > 0 && len(g.pollers.list) > 0
	g.endRound()
	if vain {
		g.pollers.yield() // out of the section and of the round, for which others wait
	}
	return n
}

func (g *group) endRound() {
	g.inRound = false
	g.polling.Unlock()
}

// round is Poll under the lock.
func (g *group) round() int {
	if g.inflight > 0 {
		g.pollers.poll()
	}
	g.enter()
	n := 0
	if g.done.head.Load() != nil {
		n = g.reap()
	}
	if g.waiting > 0 {
		n += g.postWaiting()
	}
	n += g.serveAll()
	if g.pollers.fresh {
		g.pollers.poll()
		if g.done.head.Load() != nil {
			n += g.reap()
		}
	}
	if g.inflight == 0 && len(g.pollers.list) > 0 {
		g.pollers.clear() // others may wait for the same backends
	}
	for _, q := range g.posted {
		if q.interrupt {
			q.observe()
		}
	}
	pin := g.h.interrupts.pinBased()
	if pin {
		for _, q := range g.cqs {
			q.room(q.size)
		}
	}
	g.reader.Exit()
	if n > 0 {
		g.h.c.smart.add(&g.stats)
		g.work()
	}
	// Interrupts are raised outside of the section: the write may take its time.
	if len(g.posted) > 0 {
		for _, q := range g.posted {
			g.h.interrupts.signal(q)
		}
		g.posted = g.posted[:0]
	}
	if pin {
		for _, q := range g.cqs {
			g.h.interrupts.follow(q, true)
		}
	}
	return n
}

// enter begins a section in which the translations of the queues are valid.
func (g *group) enter() {
	g.reader.Enter()
	if gen := g.reader.Generation(); gen != g.gen {
		g.translate()
		g.gen = gen
	}
}

// reap takes the commands that completed elsewhere.
func (g *group) reap() int {
	c, n := g.done.take()
	// At once: memory may be gone where they are to be posted, and then nobody must wait
	// for those that are left over.
	g.inflight -= n
	for c != nil {
		next := c.next
		cq := c.queue.cq
		if !c.result.OK() {
			c.result = g.h.logFailure(c.queue.id, &c.entry, c.result)
		}
		if cq.waiting.head == nil && cq.room(1) > 0 && g.postOne(cq, c) {
			c.queue.end(c)
		} else {
			cq.waiting.add(c)
			g.waiting++
		}
		c = next
	}
	return int(n)
}

// postWaiting posts what has found no room so far.
func (g *group) postWaiting() int {
	n := 0
	for _, q := range g.cqs {
		for q.waiting.head != nil && q.room(1) > 0 && g.postOne(q, q.waiting.head) {
			c := q.waiting.remove()
			c.queue.end(c)
			g.waiting--
			n++
		}
	}
	return n
}

func (g *group) postOne(q *compQueue, c *command) bool {
	e := q.entry(g.reader, q.tail)
	if e == nil {
		return false
	}
	if !q.posted {
		g.posted = append(g.posted, q)
	}
	q.post(e, c.queue, c.entry.CID, c.result)
	return true
}

// Arm asks for the doorbells of all queues and looks whether they were rung already.
func (g *group) Arm() (pending bool) {
	if g.failed {
		return false
	}
	g.rest()
	g.pollers.rest()
	g.enter()
	defer g.reader.Exit()
	// The pin is lowered when the doorbell comes, so with shadow doorbells it has to.
	pin := g.h.interrupts.pinBased() && g.h.shadow.set
	for _, q := range g.cqs {
		if q.waiting.head == nil && !pin && q.room(1) > 0 {
			q.blocked.Store(false)
			continue
		}
		// The doorbell has to come: set, then look once more.
		before := q.used
		q.blocked.Store(true)
		if q.event != nil {
			q.expect(q.head)
		}
		q.room(q.size)
		if q.used != before {
			pending = true
		}
	}
	for _, q := range g.active {
		tail := dma.Load32(q.door, 0)
		if q.event != nil {
			if tail >= q.size {
				tail = q.head // an invalid one counts for nothing
			}
			q.eventAt = tail
			q.expect(tail)
			tail = dma.Load32(q.door, 0)
		}
		if tail != q.head && g.servable(q, tail) > 0 {
			pending = true
		}
	}
	return pending || g.done.head.Load() != nil
}

// Disarm has nothing to undo: event indexes stay behind.
func (g *group) Disarm() {}

// Fault ends the client: its memory has gone under a poll, or the poll has a defect.
func (g *group) Fault(v any, stack []byte) {
	if g.inRound {
		g.endRound()
	}
	g.reader.Exit()
	g.failed = true
	g.held.unlock()
	g.batch.drop()
	g.pollers.rest()
	g.h.fault(v, stack)
}

// collect completes what was in flight when the group was paused.
func (g *group) drain() {
	for g.inflight > 0 {
		g.done.wait()
		g.collect()
	}
}

func (g *group) collect() {
	defer func() {
		if v := recover(); v != nil {
			g.Fault(v, nil)
		}
	}()
	if g.failed {
		_, n := g.done.take()
		g.inflight -= n
		return
	}
	g.enter()
	g.reap()
	g.reader.Exit()
	for _, q := range g.posted {
		g.h.interrupts.signal(q)
	}
	g.posted = g.posted[:0]
	g.h.c.smart.add(&g.stats)
}

// translate finds the memory of all queues anew.
func (g *group) translate() {
	g.forget()
	g.weighted = g.h.weighted
	t := translator{r: g.reader, shadow: g.h.shadow, page: g.h.c.doorbells.page}
	for _, cq := range g.cqs {
		ok := t.translate(&cq.ring)
		for _, q := range cq.sqs {
			if t.translate(&q.ring) && ok {
				g.activate(q)
			} else {
				t.missing = true
			}
		}
		if !ok {
			// Nothing is posted, and the doorbell register stands still.
			cq.door, cq.event = t.page[cq.doorbell:][:4], nil
		}
	}
	g.stalled.Store(t.missing)
	if t.message {
		g.h.askPlace()
	}
}
