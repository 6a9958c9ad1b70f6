package nvme

import (
	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// abort is Abort (Base 1.4, 5.1): of an Asynchronous Event Request, or of an I/O command that
// the backend has not begun, or that waits for a courier. Bit 0 of the result says that the
// command was not aborted.
func (h *host) abort(e *spec.SubmissionEntry) (spec.Status, uint32) {
	sqid, cid := uint16(e.CDW10), uint16(e.CDW10>>16)
	if sqid == 0 && h.aer.take(cid) {
		aborted := &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent, CID: cid}
		h.completeAdmin(cid, h.logFailure(0, aborted, spec.AbortRequested), 0)
		return spec.Success, 0
	}
	if h.validID(sqid) {
		q := h.sqs[sqid].Load()
		if q != nil && h.cancel(q, spec.AbortRequested, func(c *command) bool { return c.entry.CID == cid }) {
			return spec.Success, 0
		}
	}
	return spec.Success, 1
}

// canceled is the result of a request that was taken back: the status that its command gets.
type canceled spec.Status

func (canceled) Error() string { return "nvme: the command was aborted" }

// cancel ends those of the wanted commands of a queue that can be ended, and says whether
// there were any. If a worker runs the queue and there is room, their completions are posted
// when it returns.
func (h *host) cancel(q *subQueue, st spec.Status, wanted func(*command) bool) (any bool) {
	if q.cq.messenger != nil {
		q.mu.Lock() // nothing leaves the queue meanwhile
		defer q.mu.Unlock()
		return q.cancel(st, wanted)
	}
	h.change(q.cq, func() {
		if any = q.cancel(st, wanted); any {
			q.cq.group.collect()
		}
	})
	return any
}

// abortAll stops the workers and ends every command that can be ended.
func (h *host) abortAll() {
	for _, g := range h.groups {
		g.pause()
	}
	for i := 1; i < len(h.sqs); i++ {
		if q := h.sqs[i].Load(); q != nil {
			q.mu.Lock() // (of a messenger, which goes on)
			q.cancel(spec.AbortSQDeletion, everyCommand)
			q.mu.Unlock()
		}
	}
}

func everyCommand(*command) bool { return true }

// cancel ends commands, for the owner of the queue; they are then in its list of those done.
func (q *subQueue) cancel(st spec.Status, wanted func(*command) bool) (any bool) {
	q.flying.each(func(c *command) bool {
		if wanted(c) && q.cq.h.cancelCommand(c, st) {
			any = true
		}
		return true
	})
	return any
}

// cancelCommand ends a command: one that no courier has begun, whose courier waits for the
// backend, or that the backend has, if the backend gives its request back.
func (h *host) cancelCommand(cmd *command, st spec.Status) bool {
	if first := cmd.first; first != nil {
		if first.second != cmd {
			return false // it has ended already
		}
		cmd = first
	}
	second := cmd.second
	if h.couriers.withdraw(cmd) {
		cmd.finish(st)
		if second != nil {
			second.finish(st)
		}
		return true
	}
	if begun, ended := h.couriers.cancel(cmd, st); begun {
		return ended
	}
	// (a request that was never submitted, or has ended, is none of the backend's)
	if second != nil || cmd.ns == nil || !block.Cancel(cmd.ns.backend, &cmd.request) {
		return false
	}
	cmd.finish(st)
	return true
}

// withdraw takes a command that no courier has begun.
func (p *couriers) withdraw(cmd *command) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.take(cmd)
}

// find returns the courier that executes a command.
func (p *couriers) find(cmd *command) *courier {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.all {
		if c.executes(cmd) {
			return c
		}
	}
	return nil
}

// cancel says whether a courier has begun a command, and ends it if the backend gives back
// the request that the courier waits for.
func (p *couriers) cancel(cmd *command, st spec.Status) (begun, ended bool) {
	c := p.find(cmd)
	return c != nil, c != nil && c.cancel(cmd, st)
}

func (c *courier) executes(cmd *command) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd == cmd
}

func (c *courier) cancel(cmd *command, st spec.Status) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != cmd || c.sent == nil || !block.Cancel(c.ns.backend, c.sent) {
		return false
	}
	c.ended <- canceled(st)
	for c.cmd == cmd { // it has nothing to wait for any more
		c.left.Wait()
	}
	return true
}

// begin and finished are around a command.
func (c *courier) begin(cmd *command) {
	c.mu.Lock()
	c.cmd = cmd
	c.mu.Unlock()
}

func (c *courier) finished() {
	c.mu.Lock()
	c.cmd = nil
	c.mu.Unlock()
	c.left.Broadcast()
}

// abandoned says whether nobody will see the completion of the command.
func (c *courier) abandoned() bool {
	return c.h.abandoned() || c.cmd != nil && c.cmd.queue.deleted.Load()
}

// await waits for the end of a request in flight.
func (c *courier) await(ns *namespace, r *block.Request) error {
	c.mu.Lock()
	c.ns, c.sent = ns, r
	c.mu.Unlock()
	if c.abandoned() && block.Cancel(ns.backend, r) { // nobody need have seen it to cancel it
		c.ended <- canceled(spec.AbortSQDeletion)
	}
	err := c.end(ns, r)
	c.mu.Lock()
	c.sent = nil
	c.mu.Unlock()
	return err
}

// end waits for the result of a request, which it takes back when that is to end: by quit, or on
// the control goroutine by a reset or the end of the client.
func (c *courier) end(ns *namespace, r *block.Request) error {
	quit, wake := c.quit, (<-chan struct{})(nil)
	if c == &c.h.data {
		wake = c.h.wake
		defer c.h.signal() // what woke this up is still to be done
	}
	for {
		select {
		case err := <-c.ended:
			return err
		case <-quit:
		case <-wake:
			if !c.h.resetPending() && !c.h.abandoned() {
				continue
			}
		}
		if block.Cancel(ns.backend, r) {
			return canceled(spec.AbortRequested)
		}
		return <-c.ended
	}
}

// take removes a command from the list, if it is in there.
func (l *waitList) take(c *command) bool {
	var before *command
	for x := l.head; x != nil; before, x = x, x.next {
		if x != c {
			continue
		}
		if before == nil {
			l.head = x.next
		} else {
			before.next = x.next
		}
		if l.tail == x {
			l.tail = before
		}
		x.next = nil
		return true
	}
	return false
}
