package engine

import (
	"slices"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// maxBacklog bounds the bytes of commands that wait, and maxBacklogFDs their
// descriptors; beyond them the session is not read, which is what makes its client wait.
const (
	maxBacklog    = 2 << 20
	maxBacklogFDs = 256
)

// backlog holds back the commands of a session while an earlier one is not finished
// (an unmap that waits for I/O in flight, a reset), while the client does not read its
// replies, or until the session has its next turn. Replies of the client pass: what the
// earlier command waits for may well depend on them.
type backlog struct {
	session  *Session
	pending  bool         // a command is not finished
	header   codec.Header // of that command
	waiting  []message    // from first on
	first    int
	size     int // bytes
	fds      int
	running  bool
	resuming bool // the next turn is asked for
	timer    *reactor.Timer
}

func (b *backlog) blocked() bool { return b.pending || b.session.out.unsent() > maxUnsent }

func (b *backlog) empty() bool { return b.first == len(b.waiting) }

func (b *backlog) full() bool {
	return b.size > maxBacklog || b.fds > maxBacklogFDs || b.session.ep.foreign.full()
}

// add stores a command; it takes the message's descriptors.
func (b *backlog) add(m *message) {
	kept := *m
	kept.payload = slices.Clone(m.payload)
	kept.fds = slices.Clone(m.takeFDs())
	if b.first > len(b.waiting)/2 {
		n := copy(b.waiting, b.waiting[b.first:])
		clear(b.waiting[n:])
		b.waiting, b.first = b.waiting[:n], 0
	}
	b.waiting = append(b.waiting, kept)
	b.size += codec.HeaderSize + len(m.payload)
	b.fds += len(kept.fds)
	if b.full() {
		b.session.watch()
	}
}

// take removes the next command.
func (b *backlog) take() message {
	m := b.waiting[b.first]
	b.waiting[b.first] = message{}
	if b.first++; b.empty() {
		b.waiting, b.first = nil, 0
	}
	b.size -= codec.HeaderSize + len(m.payload)
	b.fds -= len(m.fds)
	return m
}

// run serves what waits, as far as that is possible.
func (b *backlog) run() {
	s := b.session
	if b.running || b.empty() {
		return
	}
	b.running = true
	for !b.empty() && !b.blocked() && s.state != stateDropped {
		if s.turn.over() {
			b.resume()
			break
		}
		m := b.take()
		s.dispatch(&m)
		s.ep.foreign.close(m.fds...)
	}
	b.running = false
	if s.state != stateDropped {
		s.watch()
	}
}

// resume asks for the session's next turn. It is a timer that expires at once: that
// comes after other sessions' descriptors, which a task would not.
func (b *backlog) resume() {
	switch {
	case b.resuming:
		return
	case b.timer == nil:
		b.timer = b.session.engine.reactor.AfterFunc(0, b.nextTurn)
	default:
		b.timer.Reset(0)
	}
	b.resuming = true
}

func (b *backlog) nextTurn() {
	b.resuming = false
	b.session.takeTurn(b.run)
}

func (b *backlog) close() {
	for i := range b.waiting {
		b.session.ep.foreign.close(b.waiting[i].fds...)
	}
	b.waiting, b.first, b.size, b.fds = nil, 0, 0, 0
	if b.timer != nil {
		b.timer.Stop()
	}
}

// begin makes a command the pending one.
func (b *backlog) begin(h codec.Header) { b.pending, b.header = true, h }

// finish replies to the pending command and lets the next ones run. payload appends
// the reply's payload and may be nil.
func (b *backlog) finish(err error, payload func([]byte) []byte) {
	s := b.session
	if s.state == stateDropped {
		return
	}
	b.pending = false
	start := s.out.begin()
	if err == nil && payload != nil {
		s.out.set(payload(s.out.bytes()))
	}
	s.reply(start, b.header, err)
	s.events.settle()
	b.run()
	if !s.serving {
		s.flush()
	}
}
