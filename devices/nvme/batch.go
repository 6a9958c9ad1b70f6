package nvme

import "vfiouser/block"

const (
	// maxBurst and maxBurstBytes bound what one queue gets done in its turn, so that its
	// neighbours and other devices have theirs.
	maxBurst      = 64
	maxBurstBytes = 1 << 20
	// maxRoundBytes bounds a round over all queues, as a worker has other devices too.
	maxRoundBytes = 4 << 20
	// maxInflight bounds the commands that a backend has at one time: a reset waits for
	// all of them.
	maxInflight = 512
	// batchSize is the number of commands, of any queues, that are fetched before the first
	// of them is executed.
	batchSize = 32
)

// batch holds commands that were fetched and checked, in the order in which they are to be
// executed. To look at several before the first is executed lets the processor fetch
// the blocks of one while those of another are copied. It is empty outside of a poll.
type batch struct {
	n    int
	cmds [batchSize]*command // all there; one that goes its own way is replaced
}

func (b *batch) init() {
	for i := range b.cmds {
		b.cmds[i] = newCommand()
	}
}

// drop empties the batch of a group that has failed.
func (b *batch) drop() {
	for _, c := range b.cmds[:b.n] {
		c.giveUp()
	}
	b.n = 0
}

// fetch takes up to limit commands from a queue, as many as there are and as can be
// completed. A full batch is executed.
func (g *group) fetch(q *subQueue, tail, limit uint32) (fetched uint32) {
	n := min(g.servable(q, tail), limit)
	enough := g.left - maxBurstBytes
	for fetched < n && g.left > enough {
		k := g.fill(q, tail, n-fetched, enough)
		if k == 0 {
			break // its memory cannot be reached
		}
		fetched += k
		if g.batch.n == batchSize {
			g.run()
		}
	}
	if q.event != nil && q.distance(q.eventAt, q.head) >= q.size/2 {
		q.hush(q.head) // no trapped doorbell while we look at the queue anyway
	}
	return fetched
}

// fill puts up to n commands into the batch, as far as it has room.
func (g *group) fill(q *subQueue, tail, n uint32, enough int64) (taken uint32) {
	cq := q.cq
	filled := uint32(0)
	for _, cmd := range g.batch.cmds[g.batch.n:min(g.batch.n+int(n), batchSize)] {
		from := q.entry(g.reader, q.head)
		if from == nil || cq.mem == nil && cq.find(g.reader, cq.place(cq.reserved+filled)) == nil || g.left <= enough {
			break
		}
		if cmd.queue != q {
			cmd.queue = q
		}
		cmd.entry.Get(from)
		cmd.plan, cmd.result = g.h.c.prepare(cmd)
		if cmd.result == isFused {
			both := g.fuse(q, cmd, tail)
			if both == 0 {
				break
			}
			taken += both - 1
		}
		q.head = q.next(q.head)
		g.left -= cmd.request.Length
		if filled++; taken+filled >= n {
			break
		}
	}
	g.batch.n += int(filled)
	q.fetched += filled
	cq.reserved += filled
	return taken + filled
}

// servable is the number of commands that can be fetched now.
func (g *group) servable(q *subQueue, tail uint32) uint32 {
	if tail >= q.size {
		if tail != q.badTail {
			q.badTail = tail
			g.h.raise(eventInvalidTail, q.id)
		}
		return 0
	}
	q.badTail = tail
	cq := q.cq
	if cq.waiting.head != nil {
		return 0 // what completed earlier comes first
	}
	n := min(q.distance(q.head, tail), maxBurst)
	room := cq.room(n + cq.reserved)
	mine, all := q.inflight+q.fetched, g.inflight+uint32(g.batch.n)
	limit := q.mostInFlight()
	return min(n, room-min(cq.reserved, room), limit-min(mine, limit), maxInflight-min(all, maxInflight))
}

// run executes the batch. The blocks of each command are fetched while those of the one
// before are copied.
func (g *group) run() {
	n := g.batch.n
	for i := range n {
		if i+1 < n {
			if next := g.batch.cmds[i+1]; next.plan == planData && next.ns.prefetch != nil {
				next.ns.prefetch.Prefetch(next.request.Offset, next.request.Op == block.Write)
			}
		}
		cmd := g.batch.cmds[i]
		q := cmd.queue
		cq := q.cq
		q.fetched, cq.reserved = 0, 0 // nobody fetches before the batch is empty
		st, done := g.execute(i, cmd)
		if !done {
			// Its completion may already have come, and may need the room; the loop posts
			// one entry for each command at most, so there is always enough.
			continue
		}
		if !st.OK() {
			st = g.h.logFailure(q.id, &cmd.entry, st)
		}
		if !cq.posted {
			g.posted = append(g.posted, cq)
		}
		cq.post(cq.entry(g.reader, cq.tail), q, cmd.entry.CID, st)
	}
	g.batch.n = 0
}

// fuse is subQueue.fuse for a command in the batch. The second half has passed its place.
func (g *group) fuse(q *subQueue, cmd *command, tail uint32) (taken uint32) {
	taken = q.fuse(cmd, tail, func(at uint32) []byte { return q.entry(g.reader, at) })
	if taken == 2 {
		q.head = q.next(q.head)
		q.fetched++
		q.cq.reserved++
	}
	return taken
}

// leave gives command i of the batch to its queue, as it completes later.
func (g *group) leave(i int) {
	c := g.batch.cmds[i]
	q := c.queue
	q.start(c)
	g.inflight++
	if c.second != nil {
		q.start(c.second)
		g.inflight++
	}
	g.batch.cmds[i] = q.take()
}
