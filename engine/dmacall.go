package engine

import (
	"errors"
	"fmt"

	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/engine/reactor"
)

// maxDMACalls is how many DMA messages a session has on their way; further ones wait for
// their turn.
const maxDMACalls = 256

// dmaCalls is the server's own commands: those that the client has not answered yet, and
// those that wait to be sent. They are sent in the order in which they were asked for. It
// lives on the reactor.
type dmaCalls struct {
	session *Session
	closed  error
	lastID  uint16
	open    map[uint16]*dmaCall
	waiting []*dmaCall
	sent    uint64 // for Inspect
}

// dmaCall is one DMA_READ or DMA_WRITE.
type dmaCall struct {
	command codec.Command
	addr    uint64
	data    []byte // until finish is called
	timer   *reactor.Timer
	finish  func(error) // called once, on the reactor
}

// send sends a command, now or in its turn.
func (c *dmaCalls) send(call *dmaCall) {
	if c.closed != nil {
		call.finish(c.closed)
		return
	}
	c.waiting = append(c.waiting, call)
	c.pump()
	if t := c.session.twin; t != nil {
		t.flush()
		return
	}
	c.session.flush()
}

// out is where commands go.
func (c *dmaCalls) out() *output {
	if t := c.session.twin; t != nil {
		return &t.out
	}
	return &c.session.out
}

// pump puts what waits into the output as far as there is room. What was unmapped while it
// waited is not asked for any more: the client has had, or will have, the reply that nothing
// refers to it.
func (c *dmaCalls) pump() {
	out, n := c.out(), 0
	var gone []func()
	for n < len(c.waiting) && len(c.open) < maxDMACalls && out.unsent() <= maxUnsent {
		call := c.waiting[n]
		if err := c.mapped(call); err != nil {
			gone = append(gone, func() { call.finish(err) })
		} else {
			c.put(call)
		}
		c.waiting[n] = nil
		n++
	}
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil
	}
	for _, finish := range gone {
		c.session.guard(finish)
	}
}

// mapped says whether the memory of a command is still there.
func (c *dmaCalls) mapped(call *dmaCall) error {
	prot := dma.ProtRead
	if call.command == codec.CmdDMAWrite {
		prot = dma.ProtWrite
	}
	_, err := c.session.memory.Lookup(call.addr, uint64(len(call.data)), prot)
	return err
}

func (c *dmaCalls) put(call *dmaCall) {
	s, out := c.session, c.out()
	for c.lastID++; c.open[c.lastID] != nil; c.lastID++ {
	}
	if c.open == nil {
		c.open = make(map[uint16]*dmaCall)
	}
	c.open[c.lastID] = call
	c.sent++
	start := out.begin()
	req := codec.DMAAccess{Addr: call.addr, Count: uint64(len(call.data)), Data: call.data}
	if call.command == codec.CmdDMARead {
		out.set(req.AppendHead(out.bytes()))
	} else {
		out.set(req.Append(out.bytes()))
	}
	out.commit(start, codec.Header{ID: c.lastID, Command: call.command})
	call.timer = s.engine.reactor.AfterFunc(s.engine.cfg.DMATimeout, func() { s.drop(errUnanswered) })
}

// answer takes a reply. One that answers nothing breaks the framing.
func (c *dmaCalls) answer(m *message) {
	call := c.open[m.ID]
	if call == nil || call.command != m.Command {
		c.session.drop(fmt.Errorf("reply to %v with id %d, which was not asked: %w", m.Command, m.ID, errFrame))
		return
	}
	err := call.take(m)
	if errors.Is(err, errFrame) {
		c.session.drop(err)
		return
	}
	delete(c.open, m.ID)
	call.timer.Stop()
	if call.command == codec.CmdDMAWrite { // in part perhaps, if the client failed
		c.session.memory.MarkDirty(call.addr, uint64(len(call.data)))
	}
	call.finish(err)
	c.pump()
}

// take checks a reply against the command and takes its data.
func (call *dmaCall) take(m *message) error {
	if m.IsError() {
		return m.Err()
	}
	var reply codec.DMAAccess
	var err error
	if call.command == codec.CmdDMARead {
		err = reply.DecodeReadReply(m.payload)
	} else {
		err = reply.DecodeWriteReply(m.payload)
	}
	if err != nil || reply.Addr != call.addr || reply.Count != uint64(len(call.data)) {
		return fmt.Errorf("reply to %v does not match its command: %w", m.Command, errFrame)
	}
	copy(call.data, reply.Data)
	return nil
}

// close fails what is open and what waits. The session has ended.
func (c *dmaCalls) close(cause error) {
	c.closed = fmt.Errorf("%w: %w", ErrClosed, cause)
	open, waiting := c.open, c.waiting
	c.open, c.waiting = nil, nil
	for _, call := range open {
		call.timer.Stop()
		c.session.guard(func() { call.finish(c.closed) })
	}
	for _, call := range waiting {
		c.session.guard(func() { call.finish(c.closed) })
	}
}

func dmaCommand(prot dma.Prot) codec.Command {
	if prot == dma.ProtWrite {
		return codec.CmdDMAWrite
	}
	return codec.CmdDMARead
}
