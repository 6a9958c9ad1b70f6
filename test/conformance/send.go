package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// command takes a step apart that names a command: its connection, its words, and how the
// command is laid out.
func (r *run) command(s step, flags ...string) (c *conn, w words, l layout, err error) {
	if c, err = r.conn(s); err != nil {
		return nil, words{}, layout{}, err
	}
	if len(s.args) == 0 {
		return nil, words{}, layout{}, errors.New("no command")
	}
	if l, err = layoutOf(s.args[0]); err != nil {
		return nil, words{}, layout{}, err
	}
	s.args, s.quoted = s.args[1:], s.quoted[1:]
	w, err = sortWords(s, flags...)
	return c, w, l, err
}

// send sends a command, or puts it aside until the next one is sent.
func (r *run) send(s step, queue bool) error {
	c, w, l, err := r.command(s, "noreply", "unanswered")
	if err != nil {
		return err
	}
	piece, err := r.option(&w, "split")
	if err != nil {
		return err
	}
	b, err := r.payload(&w, l)
	if err != nil {
		return err
	}
	h, err := r.requestHeader(c, &w, l, len(b))
	if err != nil {
		return err
	}
	fds, err := r.passed(w.fds)
	if err != nil {
		return err
	}
	if len(fds) > 0 && len(c.queue) > 0 {
		return errors.New("descriptors go with the first of several commands only")
	}
	c.fds = append(c.fds, fds...)
	c.queue = append(h.append(c.queue), b...)
	if !w.flags["unanswered"] && h.flags&flagNoReply == 0 {
		c.asked = append(c.asked, h)
	}
	if queue {
		return nil
	}
	out, fds := c.queue, c.fds
	c.queue, c.fds = nil, nil
	return c.sendAll(out, int(piece), fds)
}

// times is "times N COMMAND ...": N commands that want no reply, in one segment. $i counts
// them from 0, $page is $i times 4,096.
func (r *run) times(s step) error {
	if len(s.args) < 2 {
		return errors.New("wants a number and a command")
	}
	n, err := r.number(s.args[0])
	if err != nil {
		return err
	}
	one := step{
		pos: s.pos, conn: s.conn,
		args: append(slices.Clone(s.args[1:]), "noreply"), quoted: append(slices.Clone(s.quoted[1:]), false),
	}
	for i := range n {
		r.vars["i"], r.vars["page"] = i, i<<12
		if err := r.send(one, i+1 < n); err != nil {
			return err
		}
	}
	return nil
}

// option takes a number that is no field, 0 if it is not there.
func (r *run) option(w *words, name string) (uint64, error) {
	text, ok := w.take(name)
	if !ok {
		return 0, nil
	}
	return r.number(text)
}

// requestHeader makes the header of a command, with what the case wants otherwise.
func (r *run) requestHeader(c *conn, w *words, l layout, payload int) (header, error) {
	c.next++
	h := header{id: c.next, command: l.command, size: uint32(headerSize + payload)}
	if w.flags["noreply"] {
		h.flags = flagNoReply
	}
	sc := r.scope()
	sc.own = headerFlags
	for name, text := range w.header {
		v, err := sc.eval(text)
		if err != nil {
			return h, err
		}
		switch name {
		case "id":
			h.id = uint16(v)
		case "cmd":
			h.command = uint16(v)
		case "size":
			h.size = uint32(v)
		case "flags":
			h.flags = uint32(v)
		case "error":
			h.errno = uint32(v)
		default:
			return h, fmt.Errorf("a header has no %s", name)
		}
	}
	return h, nil
}

// raw sends bytes that are no message, or part of one.
func (r *run) raw(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	w, err := sortWords(s)
	if err != nil {
		return err
	}
	b, err := appendItems(nil, w.items, r.scope())
	if err != nil {
		return err
	}
	fds, err := r.passed(w.fds)
	if err != nil {
		return err
	}
	return c.sendAll(b, 0, fds)
}

// passed finds the descriptors of a message. NAME*N is the same one N times.
func (r *run) passed(names []string) (fds []int, err error) {
	for _, name := range names {
		times := uint64(1)
		if base, text, ok := strings.Cut(name, "*"); ok {
			if times, err = r.number(text); err != nil || times > maxFDs {
				return nil, fmt.Errorf("%s: at most %d: %w", name, maxFDs, err)
			}
			name = base
		}
		fd, err := r.fd(name)
		if err != nil {
			return nil, err
		}
		fds = append(fds, slices.Repeat([]int{fd}, int(times))...)
	}
	return fds, nil
}

// payload is what the words say, or as much of it as cut keeps.
func (r *run) payload(w *words, l layout) ([]byte, error) {
	keep, cut := w.take("cut")
	b, err := w.payload(l, r.scope())
	if err != nil || !cut {
		return b, err
	}
	n, err := r.number(keep)
	if err != nil || n > uint64(len(b)) {
		return nil, fmt.Errorf("cut=%s of %d bytes: %w", keep, len(b), err)
	}
	return b[:n], nil
}
