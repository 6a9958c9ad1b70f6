package engine

import (
	"slices"

	"vfiouser/codec"
)

// maxBacklog bounds the bytes of commands that wait, and maxBacklogFDs their
// descriptors; beyond them the session is not read, which is what makes its client wait.
const (
	maxBacklog    = 2 << 20
	maxBacklogFDs = 256
)

// backlog holds back the commands of a session while an earlier one is not finished
// (an unmap that waits for I/O in flight, a reset) or the client does not read its
// replies. Replies of the client pass: what the earlier command waits for may well
// depend on them.
type backlog struct {
	session *Session
	pending bool         // a command is not finished
	header  codec.Header // of that command
	waiting []message
	size    int // bytes
	fds     int
	running bool
}

func (b *backlog) blocked() bool { return b.pending || b.session.out.unsent() > maxUnsent }

func (b *backlog) full() bool {
	return b.size > maxBacklog || b.fds > maxBacklogFDs || b.session.ep.foreign.full()
}

// add stores a command; it takes the message's descriptors.
func (b *backlog) add(m *message) {
	kept := *m
	kept.payload = slices.Clone(m.payload)
	kept.fds = slices.Clone(m.takeFDs())
	b.waiting = append(b.waiting, kept)
	b.size += codec.HeaderSize + len(m.payload)
	b.fds += len(kept.fds)
	if b.full() {
		b.session.watch()
	}
}

// run serves what waits, as far as that is possible.
func (b *backlog) run() {
	s := b.session
	if b.running || len(b.waiting) == 0 {
		return
	}
	b.running = true
	for len(b.waiting) > 0 && !b.blocked() && s.state != stateDropped {
		m := b.waiting[0]
		b.waiting = slices.Delete(b.waiting, 0, 1)
		b.size -= codec.HeaderSize + len(m.payload)
		b.fds -= len(m.fds)
		s.dispatch(&m)
		s.ep.foreign.close(m.fds...)
	}
	b.running = false
	if s.state != stateDropped {
		s.watch()
	}
}

func (b *backlog) close() {
	for i := range b.waiting {
		b.session.ep.foreign.close(b.waiting[i].fds...)
	}
	b.waiting, b.size, b.fds = nil, 0, 0
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
	b.run()
	if !s.serving {
		s.flush()
	}
}
