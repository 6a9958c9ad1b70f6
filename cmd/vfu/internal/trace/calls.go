package trace

import (
	"time"

	"vfiouser/codec"
)

// maxCalls bounds how many commands without a reply are remembered. (An id has 16 bits,
// but may be used again while it is in use.)
const maxCalls = 1 << 16

// calls finds the command that a reply answers.
type calls struct {
	open  map[callKey][]time.Time
	count int
}

type callKey struct {
	direction // of the command
	command   codec.Command
	id        uint16
}

func newCalls() *calls { return &calls{open: make(map[callKey][]time.Time)} }

// note takes a message and returns, for the reply to a command, how long that took.
func (c *calls) note(m *message) (latency time.Duration, ok bool) {
	if m.broken != nil || m.again {
		return 0, false
	}
	key := callKey{direction{m.session, m.channel, m.from}, m.header.Command, m.header.ID}
	if !m.header.IsReply() {
		if !m.header.NoReply() && c.count < maxCalls {
			c.open[key] = append(c.open[key], m.time)
			c.count++
		}
		return 0, false
	}
	key.from = other(m.from)
	waiting := c.open[key]
	if len(waiting) == 0 {
		return 0, false
	}
	c.count--
	if len(waiting) == 1 {
		delete(c.open, key)
	} else {
		c.open[key] = waiting[1:]
	}
	return m.time.Sub(waiting[0]), true
}

// forget drops the commands of a session that has ended, and of those before it.
func (c *calls) forget(session int) {
	for key, waiting := range c.open {
		if key.session <= session {
			c.count -= len(waiting)
			delete(c.open, key)
		}
	}
}

func other(s Side) Side {
	if s == Client {
		return Server
	}
	return Client
}
