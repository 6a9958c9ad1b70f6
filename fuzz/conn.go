package fuzz

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// maxMessage is the largest message that a server takes, in bytes.
const maxMessage = codec.HeaderSize + codec.RegionAccessSize + 1<<20

// conn is a connection of a client, and what it may expect of the server. It reads along what is
// sent, whatever it is meant to be, as the server has to understand it.
type conn struct {
	l    *life
	main *socket
	twin *socket // nil: the server has none

	id      uint16
	partial []byte // sent, and not a whole message yet
	count   uint64 // messages sent
	queue   []outgoing
	sending bool
	// unsettled is about how many bytes were sent since all was answered.
	unsettled int
	waiting   []request
	maxFDs    int

	negotiated bool
	posted     bool          // VERSION was, so that its refusal is not told
	may        string        // why the server may end the session; "": it may not
	must       bool          // end it
	ended      bool          // it has
	broken     *codec.Header // of the message that broke the framing, to which it may reply

	maps []*mapping
	asks []ask
	// gifts are the descriptors that came with replies; those of regions are first.
	regionFDs, eventFDs []int
}

// request is a command that waits for its reply.
type request struct {
	codec.Header
	payload []byte
	seq     uint64
	mapping *mapping // of DMA_MAP
}

// newConn connects.
func newConn(l *life) *conn {
	s, err := dial(l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	c := &conn{l: l, main: s, maxFDs: codec.DefaultMaxMsgFDs}
	if l.lingers {
		c.may = "the last client has not left"
	}
	return c
}

func (c *conn) close() {
	c.main.close()
	if c.twin != nil {
		c.twin.close()
	}
	reactor.CloseFDs(c.regionFDs)
	reactor.CloseFDs(c.eventFDs)
	c.regionFDs, c.eventFDs = nil, nil
}

// message makes a command with its header.
func (c *conn) message(command codec.Command, flags codec.Flags, payload []byte) []byte {
	c.id++
	h := codec.Header{ID: c.id, Command: command, Size: uint32(codec.HeaderSize + len(payload)), Flags: flags}
	return append(h.Append(make([]byte, 0, h.Size)), payload...)
}

// call sends a command.
func (c *conn) call(command codec.Command, payload []byte, fds ...int) {
	c.write(c.message(command, 0, payload), fds...)
}

// write sends bytes, and receives meanwhile what the server needs to get rid of.
func (c *conn) write(b []byte, fds ...int) {
	c.note(b)
	c.l.trace.add(b, len(fds))
	c.unsettled += len(b) + len(fds)*fdWeight
	c.queue = append(c.queue, outgoing{b, fds})
	if c.sending { // an answer, given while the socket was full
		return
	}
	c.sending = true
	for len(c.queue) > 0 && !c.main.over {
		c.sendSome(&c.queue[0])
		if len(c.queue[0].bytes) == 0 {
			c.queue = c.queue[1:]
		}
	}
	c.queue, c.sending = nil, false
}

// outgoing is something that is to be sent.
type outgoing struct {
	bytes []byte
	fds   []int
}

const (
	// fdWeight is what a descriptor counts beside the bytes of messages.
	fdWeight = 4 << 10
	// maxUnsettled is how much a client sends before it waits for replies. A server stops to
	// read at some point while a command is not finished, and that one may wait for an answer
	// of the client's, which would be stuck.
	maxUnsettled = 256 << 10
)

// sendSome sends a part of what is first in the queue.
func (c *conn) sendSome(o *outgoing) {
	n, err := c.main.send(o.bytes[:c.l.piece(len(o.bytes))], o.fds)
	switch err {
	case nil:
		o.bytes, o.fds = o.bytes[n:], nil
	case unix.EAGAIN:
		c.answerAll()
		if !c.pump() && !waitFor(c.l.r.hangAfter, c.main, c.main, c.twin) {
			c.l.hang("the server does not read")
		}
	case unix.EPIPE, unix.ECONNRESET:
		c.untilOver()
	default:
		c.l.t.Fatalf("send: %v", err)
	}
}

// note takes down what the server has to make of what is sent.
func (c *conn) note(b []byte) {
	if c.broken != nil {
		return
	}
	c.partial = append(c.partial, b...)
	for len(c.partial) >= codec.HeaderSize {
		h, err := codec.DecodeHeader(c.partial)
		if err != nil || h.Size > maxMessage {
			c.broken, c.may, c.must = &h, "the framing is broken", true
			return
		}
		if int(h.Size) > len(c.partial) {
			return
		}
		payload := bytes.Clone(c.partial[codec.HeaderSize:h.Size])
		c.partial = c.partial[:copy(c.partial, c.partial[h.Size:])]
		c.count++
		c.sent(h, payload)
	}
}

// sent notes a message.
func (c *conn) sent(h codec.Header, payload []byte) {
	if h.IsReply() {
		if c.twin != nil || !c.answered(h, payload) {
			c.may, c.must = "a reply answers nothing", true
		}
		return
	}
	r := request{Header: h, payload: payload, seq: c.count}
	switch h.Command {
	case codec.CmdVersion:
		if h.NoReply() && !c.negotiated {
			c.posted, c.may = true, "VERSION is posted"
		}
	case codec.CmdDMAMap:
		var m codec.DMAMap
		if m.Decode(payload) == nil {
			r.mapping = &mapping{iova: m.Addr, size: m.Size, flags: m.Flags, seq: c.count}
			c.maps = append(c.maps, r.mapping)
		}
	}
	if !h.NoReply() {
		c.waiting = append(c.waiting, r)
	}
}

// pump takes what has come, and says whether something has.
func (c *conn) pump() (some bool) {
	for _, s := range []*socket{c.main, c.twin} {
		if s == nil || s.over {
			continue
		}
		came, err := s.receive()
		if err != nil {
			c.l.t.Fatalf("receive: %v", err)
		}
		some = some || came
		for {
			m, ok, err := s.next()
			if err != nil {
				c.l.fail("the server broke the framing: %v", err)
			}
			if !ok {
				break
			}
			c.take(s, m)
		}
	}
	if c.main.over && !c.ended {
		c.over()
	}
	return some
}

// take takes a message of the server.
func (c *conn) take(from *socket, m incoming) {
	switch {
	case m.IsReply() && from == c.main:
		c.reply(m)
	case m.IsReply():
		c.l.fail("%v is answered on the twin socket", m.Command)
	case c.twin != nil && from == c.main:
		c.l.fail("%v comes beside the twin socket", m.Command)
	default:
		c.asked(m)
	}
}

// reply takes a reply.
func (c *conn) reply(m incoming) {
	if len(c.waiting) == 0 || c.waiting[0].ID != m.ID || c.waiting[0].Command != m.Command {
		if b := c.broken; b != nil && b.ID == m.ID && b.Command == m.Command && m.IsError() {
			c.waiting = nil
			return
		}
		reactor.CloseFDs(m.fds)
		c.l.fail("a reply to %v %d comes; %s", m.Command, m.ID, c.awaits())
	}
	r := c.waiting[0]
	c.waiting = c.waiting[1:]
	if err := c.checkReply(&r, &m); err != nil {
		reactor.CloseFDs(m.fds)
		c.l.fail("the reply to %s is %s: %v", codec.Message{Header: r.Header, Payload: r.payload},
			codec.Message{Header: m.Header, Payload: m.payload}, err)
	}
	c.learn(&r, &m)
}

func (c *conn) awaits() string {
	if len(c.waiting) == 0 {
		return "none is awaited"
	}
	return fmt.Sprintf("one to %v %d is awaited", c.waiting[0].Command, c.waiting[0].ID)
}

// learn takes what follows from a reply.
func (c *conn) learn(r *request, m *incoming) {
	if m.IsError() {
		c.l.refused = m.Err().Error()
	}
	if c.l.heard != nil {
		c.l.heard(m)
	}
	switch {
	case r.Command == codec.CmdVersion && !c.negotiated:
		c.welcome(r, m)
	case r.Command == codec.CmdDMAMap && m.IsError():
		c.forget(func(g *mapping) bool { return g == r.mapping })
	case r.Command == codec.CmdDMAUnmap && !m.IsError():
		c.unmapped(r)
	case r.Command == codec.CmdGetRegionInfo && len(c.regionFDs) < maxGifts:
		c.regionFDs, m.fds = append(c.regionFDs, m.fds...), nil
	case r.Command == codec.CmdGetRegionIOFDs && len(c.eventFDs) < maxGifts:
		c.eventFDs, m.fds = append(c.eventFDs, m.fds...), nil
	case r.Command == codec.CmdRegionRead && !m.IsError():
		c.l.look(r.ID, m.payload)
	case r.Command == codec.CmdMigDataRead && !m.IsError():
		c.l.keepState(m.payload)
	}
	reactor.CloseFDs(m.fds)
}

// maxGifts is about how many descriptors of each kind a client keeps.
const maxGifts = 16

// welcome takes the reply to the first VERSION.
func (c *conn) welcome(r *request, m *incoming) {
	if m.IsError() {
		c.may, c.must = "VERSION is refused", true
		return
	}
	c.negotiated = true
	if c.posted {
		c.posted = false
		if !c.must { // for another reason
			c.may = ""
		}
	}
	var asked codec.VersionMsg
	_ = asked.Decode(r.payload) // the reply has been checked against it
	asked.Caps.Defaults()
	c.maxFDs = int(min(asked.Caps.MaxMsgFDs, reactor.MaxFDs))
	if len(m.fds) == 1 {
		c.twin, m.fds = &socket{fd: m.fds[0]}, nil
	}
}

// settle waits for everything that is still to come.
func (c *conn) settle() {
	c.complete()
	for !c.main.over && (len(c.waiting) > 0 || c.must) {
		c.answerAll()
		if !c.pump() && !waitFor(c.l.r.hangAfter, nil, c.main, c.twin) {
			c.l.hang(fmt.Sprintf("the server does not answer: %s; the session has to end: %v (%s)", c.awaits(), c.must, c.may))
		}
	}
	c.unsettled = 0
}

// complete sends what a message lacks that was begun, or nothing can be said any more.
func (c *conn) complete() {
	for len(c.partial) > 0 && c.broken == nil {
		c.write(make([]byte, codec.Missing(c.partial)))
	}
}

// untilOver waits until the server hangs up.
func (c *conn) untilOver() {
	for !c.main.over {
		if !c.pump() && !waitFor(c.l.r.hangAfter, nil, c.main, c.twin) {
			c.l.hang("the server has closed its end, and it cannot be seen")
		}
	}
}

// over is called when the server has hung up.
func (c *conn) over() {
	c.ended = true
	if c.may == "" {
		c.l.unexpectedEnd()
	}
	c.waiting, c.must = nil, false
}
