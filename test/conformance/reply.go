package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// next receives the reply to the oldest command that is open, and checks its header.
func (r *run) nextReply(c *conn, flags uint32) (message, header, error) {
	if len(c.asked) == 0 {
		return message{}, header{}, errors.New("nothing is asked")
	}
	h := c.asked[0]
	m, err := c.receive()
	if err != nil {
		closeAll(m.fds)
		return m, h, fmt.Errorf("to %s: %w", nameOf(h.command), err)
	}
	c.asked = c.asked[1:]
	switch {
	case m.id != h.id || m.command != h.command:
		err = fmt.Errorf("%s, id %d, flags %#x came, want the reply to %s, id %d", nameOf(m.command), m.id, m.flags, nameOf(h.command), h.id)
	case m.flags != flags && m.flags&flagError != 0:
		err = fmt.Errorf("to %s: %w", nameOf(h.command), unix.Errno(m.errno))
	case m.flags != flags:
		err = fmt.Errorf("to %s has flags %#x, want %#x", nameOf(h.command), m.flags, flags)
	}
	if err != nil {
		closeAll(m.fds)
	}
	return m, h, err
}

// reply wants a reply without error.
func (r *run) reply(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	w, err := sortWords(s, "whole")
	if err != nil {
		return err
	}
	size, sized := w.take("msg_size")
	m, h, err := r.nextReply(c, flagReply)
	if err != nil {
		return err
	}
	err = r.bind(w.fds, m.fds)
	switch {
	case err != nil:
	case m.errno != 0:
		err = fmt.Errorf("has error %d without the Error bit", m.errno)
	case w.flags["whole"] && !m.whole:
		err = errors.New("came in pieces")
	case sized:
		err = r.scope().match(size, uint64(m.size))
	}
	if err != nil {
		return fmt.Errorf("to %s: %w", nameOf(h.command), err)
	}
	if err := w.matchReply(h.command, m.payload, r.scope()); err != nil {
		return fmt.Errorf("to %s: %w\npayload: %x", nameOf(h.command), err, m.payload[:min(len(m.payload), 256)])
	}
	return nil
}

// matchReply checks the payload of a reply.
func (w *words) matchReply(command uint16, b []byte, sc scope) error {
	switch name := nameOf(command); {
	case name == "VERSION":
		return w.matchVersion(b, sc)
	case len(w.fields) == 0 && len(w.items) == 0:
		if len(b) > 0 {
			return fmt.Errorf("has a payload of %d bytes, want none", len(b))
		}
		return nil
	default:
		return w.matchPayload(b, layouts[name], sc)
	}
}

// wantError wants a reply that is a header with this errno and nothing else.
func (r *run) wantError(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(s.args) != 1 {
		return errors.New("wants one errno")
	}
	m, h, err := r.nextReply(c, flagReply|flagError)
	if err != nil {
		return err
	}
	closeAll(m.fds)
	switch got := unix.ErrnoName(unix.Errno(m.errno)); {
	case len(m.payload) > 0:
		return fmt.Errorf("to %s has a payload of %d bytes", nameOf(h.command), len(m.payload))
	case len(m.fds) > 0:
		return fmt.Errorf("to %s has %d descriptors", nameOf(h.command), len(m.fds))
	case s.args[0] != "_" && !slices.Contains(strings.Split(s.args[0], "/"), got):
		return fmt.Errorf("to %s is %s (%d), want %s", nameOf(h.command), got, m.errno, s.args[0])
	}
	return nil
}
