package client

import (
	"context"
	"time"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

const (
	// maxCalls is how many requests may be under way; further ones wait for a free slot.
	maxCalls = 256
	// fixedSize is room for the fixed part of any request or reply, in bytes.
	fixedSize = 48
)

// call is a slot for a request that is under way. A slot belongs to who began it, until release; what the reader fills in
// is guarded by conn.mu. Slots are reused, so that a call allocates nothing.
type call struct {
	id       uint16 // the slot's number in the low byte, above it a count of its uses
	command  codec.Command
	deadline time.Time // if conn.callTime is set
	state    callState
	parked   bool          // its owner sleeps on wake
	wake     chan struct{} // a token: done, or it is your turn to read, or the session has ended

	request [codec.HeaderSize + fixedSize]byte

	// The reply: a fixed part of exactly fixed bytes goes to head, the rest, at most len(data) bytes, to data.
	fixed int
	data  []byte
	head  [fixedSize]byte
	n     int   // bytes of data that came
	fds   []int // descriptors that came, owned by the caller
	err   error // the server's error reply
}

type callState uint8

const (
	callFree      callState = iota
	callBegun               // owned, nothing sent: no reply may come
	callWaiting             // sent
	callDone                // the reply is here
	callAbandoned           // its owner has given up, the reply is still to come
)

// payload is where the fixed part of the request goes: append to it and hand the result to start.
func (k *call) payload() []byte { return k.request[codec.HeaderSize:codec.HeaderSize] }

// expect says what a reply without error must look like.
func (k *call) expect(fixed int, data []byte) { k.fixed, k.data = fixed, data }

func (k *call) reply() []byte { return k.head[:k.fixed] }

func (k *call) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// begin reserves a slot. It must be followed by start.
func (c *conn) begin(ctx context.Context, command codec.Command) (*call, error) {
	var deadline time.Time
	if c.callTime > 0 {
		deadline = time.Now().Add(c.callTime)
		bounded, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		ctx = bounded
	}
	c.mu.Lock()
	for {
		if err := c.refuse(ctx); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		if n := len(c.free); n > 0 {
			k := c.free[n-1]
			c.free = c.free[:n-1]
			c.claim(k, command)
			k.deadline = deadline
			c.mu.Unlock()
			return k, nil
		}
		if n := len(c.slots); n < maxCalls {
			k := &call{id: uint16(n), wake: make(chan struct{}, 1)}
			c.slots = append(c.slots, k)
			c.claim(k, command)
			k.deadline = deadline
			c.mu.Unlock()
			return k, nil
		}
		if c.slotFree == nil {
			c.slotFree = make(chan struct{})
		}
		wait := c.slotFree
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
		case <-c.done:
		}
		c.mu.Lock()
	}
}

// refuse says why nothing may be begun any more.
func (c *conn) refuse(ctx context.Context) error {
	if c.err != nil {
		return c.err
	}
	return ctx.Err()
}

func (c *conn) claim(k *call, command codec.Command) {
	k.command, k.state = command, callBegun
	k.id += maxCalls
	k.fixed, k.data, k.n, k.err = 0, nil, 0, nil
	c.users++
	c.used++
}

// put writes the header before the payload and returns both.
func (k *call) put(flags codec.Flags, payload, data int) []byte {
	size := codec.HeaderSize + payload
	h := codec.Header{ID: k.id, Command: k.command, Size: uint32(size + data), Flags: flags}
	h.Put(k.request[:])
	return k.request[:size]
}

// post sends the request and wants no reply. The slot is gone afterwards.
func (c *conn) post(ctx context.Context, k *call, payload, data []byte) error {
	if c.callTime > 0 {
		bounded, cancel := context.WithDeadline(ctx, k.deadline)
		defer cancel()
		ctx = bounded
	}
	err := c.send(ctx, nil, k.put(codec.FlagNoReply, len(payload), len(data)), data)
	c.release(k)
	return err
}

// start sends the request: what was appended to k.payload, then data, with descriptors, which stay the caller's.
// After an error the slot is gone.
func (c *conn) start(ctx context.Context, k *call, payload, data []byte, fds []int) error {
	if c.callTime > 0 {
		bounded, cancel := context.WithDeadline(ctx, k.deadline)
		defer cancel()
		ctx = bounded
	}
	head := k.put(0, len(payload), len(data))
	c.mu.Lock()
	k.state = callWaiting // before the first byte leaves: the reply may be quicker than we are
	c.mu.Unlock()
	err := c.send(ctx, fds, head, data)
	if err != nil {
		c.mu.Lock()
		if k.state == callWaiting {
			k.state = callBegun
		}
		c.mu.Unlock()
		c.release(k)
	}
	return err
}

// wait waits for the reply. Without an error the reply is in k until release; after one the slot is gone.
//
// The goroutine that waits reads the socket itself if nobody else does, and serves the others meanwhile: a round trip
// is then two system calls and no switch between goroutines. Who comes later sleeps, until its
// reply was read or the reader leaves and passes the socket on.
func (c *conn) wait(ctx context.Context, k *call) error {
	if c.callTime > 0 {
		bounded, cancel := context.WithDeadline(ctx, k.deadline)
		defer cancel()
		ctx = bounded
	}
	c.mu.Lock()
	for k.state == callWaiting && c.err == nil {
		if err := ctx.Err(); err != nil {
			c.abandon(k)
			c.mu.Unlock()
			return err
		}
		if c.reading || c.eager {
			k.parked = true
			c.mu.Unlock()
			select {
			case <-k.wake:
			case <-ctx.Done():
			}
			c.mu.Lock()
			k.parked = false
			continue
		}
		c.reading = true
		c.mu.Unlock()
		c.lead(ctx, k)
		c.mu.Lock()
		c.reading = false
		c.passOn()
	}
	err := k.err
	if k.state != callDone {
		err = c.err
	}
	c.mu.Unlock()
	if err != nil {
		c.release(k)
	}
	return err
}

// passOn wakes somebody who waits, so that he reads. The reactor reads if nobody does.
func (c *conn) passOn() {
	if c.eager || c.reading {
		return
	}
	for _, k := range c.slots {
		if k.parked && k.state == callWaiting {
			k.signal()
			return
		}
	}
}

// abandon gives up a call: its slot stays taken until the late reply was dropped.
func (c *conn) abandon(k *call) {
	k.state = callAbandoned
	k.data = nil
	c.passOn() // the turn to read may just have been given to this one
	c.leave()
}

// release gives a slot back, with whatever descriptors are still in it.
func (c *conn) release(k *call) {
	c.mu.Lock()
	c.freeSlot(k)
	c.leave()
	c.mu.Unlock()
}

func (c *conn) freeSlot(k *call) {
	reactor.CloseFDs(k.fds)
	k.fds = k.fds[:0]
	k.state, k.data = callFree, nil
	select {
	case <-k.wake: // a token nobody needs any more
	default:
	}
	c.free = append(c.free, k)
	if c.slotFree != nil {
		close(c.slotFree)
		c.slotFree = nil
	}
}

// lead reads the socket, for everybody, until the reply to k is here, ctx or the session ends.
func (c *conn) lead(ctx context.Context, k *call) {
	for !c.receive(k) {
		if ctx.Err() != nil {
			return
		}
	}
}

// deliver hands a reply to its call and returns it.
func (c *conn) deliver(m *message) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := int(m.ID % maxCalls)
	if i >= len(c.slots) || c.slots[i].id != m.ID {
		return nil, broken(m.Command, nil, "reply with id %d, which no request has", m.ID)
	}
	k := c.slots[i]
	if k.state != callWaiting && k.state != callAbandoned {
		return nil, broken(m.Command, nil, "reply with id %d, to which none is due", m.ID)
	}
	if m.Command != k.command {
		return nil, broken(m.Command, nil, "reply to a %s", k.command)
	}
	if k.state == callAbandoned {
		c.freeSlot(k)
		return nil, nil
	}
	if err := k.accept(m); err != nil {
		return nil, err
	}
	k.state = callDone
	if k.parked {
		k.signal()
	}
	return k, nil
}

// accept checks a reply and copies it out of the input.
func (k *call) accept(m *message) error {
	if m.IsError() {
		k.err = m.Err()
		return nil
	}
	rest := len(m.payload) - k.fixed
	if rest < 0 || rest > len(k.data) {
		return broken(m.Command, nil, "reply with a payload of %d bytes, %d to %d were expected",
			len(m.payload), k.fixed, k.fixed+len(k.data))
	}
	copy(k.head[:], m.payload[:k.fixed])
	k.n = copy(k.data, m.payload[k.fixed:])
	if op, _ := codec.Lookup(m.Command); op.ReplyFDs {
		k.fds = append(k.fds[:0], m.fds...)
		m.fds = nil
	}
	return nil
}
