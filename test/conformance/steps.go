package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// verbs are the steps of the language; README.md describes them.
var verbs = map[string]func(*run, step) error{
	"connect":   (*run).connect,
	"attach":    (*run).attach,
	"send":      func(r *run, s step) error { return r.send(s, false) },
	"queue":     func(r *run, s step) error { return r.send(s, true) },
	"times":     (*run).times,
	"raw":       (*run).raw,
	"reply":     (*run).reply,
	"error":     (*run).wantError,
	"expect":    (*run).expect,
	"answer":    (*run).answer,
	"eof":       (*run).eof,
	"close":     (*run).closeName,
	"fd":        (*run).makeFD,
	"kind":      (*run).kind,
	"poke":      (*run).poke,
	"peek":      (*run).peek,
	"truncate":  (*run).truncate,
	"signal":    (*run).signal,
	"signalled": (*run).signalled,
	"silent":    (*run).silent,
	"released":  (*run).released,
	"mapped":    (*run).mapped,
	"unmapped":  (*run).unmapped,
	"let":       (*run).let,
	"device":    (*run).device,
	"to":        (*run).to,
	"save":      (*run).save,
	"load":      (*run).load,
	"same":      (*run).same,
}

// checks says whether a step looks at something; a case without one proves nothing.
func (s step) checks() bool {
	switch s.verb {
	case "reply", "error", "expect", "eof", "peek", "kind", "signalled", "silent", "released", "mapped", "unmapped", "same":
		return true
	case "device":
		return len(s.args) > 0 && (s.args[0] == "done" || s.args[0] == "rings")
	}
	return false
}

// connect opens a connection without a word.
func (r *run) connect(s step) error {
	name := s.conn
	if name == "" {
		name = "c"
	}
	if c, ok := r.conns[name]; ok && c.fd >= 0 {
		return fmt.Errorf("connection %q is open", name)
	}
	fd, err := r.target.Dial()
	if err == nil {
		r.add(name, fd)
	}
	return err
}

// defaultCaps is what attach proposes if the case does not care.
const defaultCaps = `{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}`

// attach connects and negotiates; the VERSION itself is not what the case is about.
func (r *run) attach(s step) error {
	w, err := sortWords(s)
	if err != nil {
		return err
	}
	if err := r.connect(s); err != nil {
		return err
	}
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(w.items) == 0 {
		w.items = []item{{"text", defaultCaps}}
	}
	if _, ok := w.fields["minor"]; !ok {
		w.fields["minor"] = "1"
	}
	w.items = append(w.items, item{"u8", "0"})
	b, err := w.payload(layouts["VERSION"], r.scope())
	if err != nil {
		return err
	}
	h := header{id: 0xa77a, command: layouts["VERSION"].command, size: uint32(headerSize + len(b))}
	if err := c.sendAll(append(h.append(nil), b...), 0, nil); err != nil {
		return err
	}
	m, err := c.receive()
	if err != nil {
		closeAll(m.fds)
		return err
	}
	if m.command != h.command || m.id != h.id || m.flags != flagReply {
		closeAll(m.fds)
		return fmt.Errorf("VERSION got %+v", m.header)
	}
	if err := r.bind(w.fds, m.fds); err != nil {
		return err
	}
	w.fields = map[string]string{"major": "0", "minor": "_"}
	return w.matchVersion(m.payload, r.scope())
}

// send sends a command, or puts it aside until the next one is sent.
func (r *run) send(s step, queue bool) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(s.args) == 0 {
		return errors.New("no command")
	}
	name := s.args[0]
	s.args, s.quoted = s.args[1:], s.quoted[1:]
	w, err := sortWords(s, "noreply", "unanswered")
	if err != nil {
		return err
	}
	l, err := layoutOf(name)
	if err != nil {
		return err
	}
	piece, err := r.option(&w, "split")
	if err != nil {
		return err
	}
	keep, cut := w.take("cut")
	b, err := w.payload(l, r.scope())
	if err != nil {
		return err
	}
	if cut {
		n, err := r.number(keep)
		if err != nil || n > uint64(len(b)) {
			return fmt.Errorf("cut=%s of %d bytes: %w", keep, len(b), err)
		}
		b = b[:n]
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

// expect wants a command of the server.
func (r *run) expect(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(s.args) == 0 {
		return errors.New("no command")
	}
	name := s.args[0]
	s.args, s.quoted = s.args[1:], s.quoted[1:]
	w, err := sortWords(s)
	if err != nil {
		return err
	}
	l, err := layoutOf(name)
	if err != nil {
		return err
	}
	m, err := c.receive()
	if err != nil {
		closeAll(m.fds)
		return err
	}
	if err := r.bind(nil, m.fds); err != nil {
		return err
	}
	if m.command != l.command || m.flags != 0 {
		return fmt.Errorf("%s with flags %#x came", nameOf(m.command), m.flags)
	}
	c.told, c.toldRaw = m.header, m.payload
	r.vars["id"] = uint64(m.id)
	return w.matchPayload(m.payload, l, r.scope())
}

// answer replies to the server's last command. The fields are those of the command
// unless the case says otherwise.
func (r *run) answer(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	w, err := sortWords(s)
	if err != nil {
		return err
	}
	if c.told.size == 0 {
		return errors.New("the server has not asked")
	}
	l := layouts[nameOf(c.told.command)]
	if _, named := w.header["error"]; named {
		w.header["flags"] = "REPLY|ERROR"
		l = layout{}
	} else if _, named := w.header["flags"]; !named {
		w.header["flags"] = "REPLY"
	}
	piece, err := r.option(&w, "split")
	if err != nil {
		return err
	}
	keep, cut := w.take("cut")
	raw := c.toldRaw
	for _, f := range l.fields {
		v, rest, _ := takeNumber(raw, f.size)
		raw = rest
		if _, named := w.fields[f.name]; !named {
			w.fields[f.name] = fmt.Sprint(v)
		}
	}
	b, err := w.payload(l, r.scope())
	if err != nil {
		return err
	}
	if cut {
		n, err := r.number(keep)
		if err != nil || n > uint64(len(b)) {
			return fmt.Errorf("cut=%s of %d bytes: %w", keep, len(b), err)
		}
		b = b[:n]
	}
	if _, named := w.header["id"]; !named {
		w.header["id"] = fmt.Sprint(c.told.id)
	}
	h, err := r.requestHeader(c, &w, layout{command: c.told.command}, len(b))
	if err != nil {
		return err
	}
	return c.sendAll(append(h.append(nil), b...), int(piece), nil)
}

// eof wants the server to hang up without another word.
func (r *run) eof(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	fds, b, err := c.rest()
	closeAll(fds)
	if err == nil && len(b) > 0 {
		err = fmt.Errorf("the server sent %x before it hung up", b[:min(len(b), 64)])
	}
	c.asked = nil
	return err
}

// closeName closes a connection or a descriptor.
func (r *run) closeName(s step) error {
	for _, name := range s.args {
		if c, ok := r.conns[name]; ok && c.fd >= 0 {
			_ = unix.Close(c.fd)
			c.fd = -1
			continue
		}
		fd, err := r.fd(name)
		if err != nil {
			return err
		}
		delete(r.fds, name)
		_ = unix.Close(fd)
	}
	return nil
}

// makeFD is "fd NAME... KIND [SIZE]".
func (r *run) makeFD(s step) error {
	var size uint64
	names := s.args
	if n := len(names); n > 1 && makers[names[n-1]] == nil {
		v, err := r.number(names[n-1])
		if err != nil {
			return err
		}
		size, names = v, names[:n-1]
	}
	if len(names) < 2 || makers[names[len(names)-1]] == nil {
		return errors.New("wants names, a kind and maybe a size")
	}
	kind := names[len(names)-1]
	for _, name := range names[:len(names)-1] {
		made, err := makers[kind](size)
		if err != nil {
			return err
		}
		for end, fd := range made {
			if err := r.bind([]string{name + end}, []int{fd}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bytesAt is "NAME OFFSET ITEM...".
func (r *run) bytesAt(s step) (fd int, off uint64, b []byte, err error) {
	if len(s.args) < 3 {
		return -1, 0, nil, errors.New("wants a descriptor, an offset and bytes")
	}
	if fd, err = r.fd(s.args[0]); err != nil {
		return
	}
	if off, err = r.number(s.args[1]); err != nil {
		return
	}
	w, err := sortWords(step{args: s.args[2:], quoted: s.quoted[2:]})
	if err != nil {
		return
	}
	b, err = appendItems(nil, w.items, r.scope())
	return
}

// poke writes to a file.
func (r *run) poke(s step) error {
	fd, off, b, err := r.bytesAt(s)
	if err == nil {
		_, err = unix.Pwrite(fd, b, int64(off))
	}
	return err
}

// peek checks what a file holds.
func (r *run) peek(s step) error {
	fd, off, want, err := r.bytesAt(s)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if n, err := unix.Pread(fd, got, int64(off)); err != nil || n < len(got) {
		return fmt.Errorf("%d bytes at %#x, want %d: %w", n, off, len(got), err)
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("byte %#x of %s is %#02x, want %#02x", off+uint64(i), s.args[0], got[i], want[i])
		}
	}
	return nil
}

// let gives a variable a value.
func (r *run) let(s step) error {
	if len(s.args) != 2 {
		return errors.New("wants a name and a value")
	}
	v, err := r.number(s.args[1])
	r.vars[s.args[0]] = v
	return err
}

// withFD runs a check of one descriptor; what follows its name is returned.
func (r *run) withFD(s step, check func(fd int, rest []string) error) error {
	if len(s.args) == 0 {
		return errors.New("no descriptor")
	}
	fd, err := r.fd(s.args[0])
	if err != nil {
		return err
	}
	if err := check(fd, s.args[1:]); err != nil {
		return fmt.Errorf("%s %w", s.args[0], err)
	}
	return nil
}

func (r *run) truncate(s step) error {
	return r.withFD(s, func(fd int, rest []string) error {
		n, err := r.number(strings.Join(rest, " "))
		if err != nil {
			return err
		}
		return unix.Ftruncate(fd, int64(n))
	})
}

func (r *run) kind(s step) error {
	return r.withFD(s, func(fd int, rest []string) error {
		kind := strings.Join(rest, " ")
		ok, err := isKind(fd, kind)
		if err == nil && !ok {
			err = fmt.Errorf("is no %s", kind)
		}
		return err
	})
}

// signal adds to an eventfd.
func (r *run) signal(s step) error {
	return r.withFD(s, func(fd int, rest []string) error {
		n, err := r.number(strings.Join(rest, " "))
		if err != nil {
			return err
		}
		b, err := appendNumber(nil, 8, n)
		if err == nil {
			_, err = unix.Write(fd, b)
		}
		return err
	})
}

func (r *run) signalled(s step) error {
	return r.withFD(s, func(fd int, rest []string) error {
		n, err := r.number(strings.Join(rest, " "))
		if err != nil {
			return err
		}
		return count(fd, n)
	})
}

func (r *run) silent(s step) error {
	for i := range s.args {
		one := step{args: s.args[i : i+1]}
		if err := r.withFD(one, func(fd int, _ []string) error { return silent(fd) }); err != nil {
			return err
		}
	}
	return nil
}

// released closes our copy of a pipe's or socket's writing end, and waits until the
// server has closed its own.
func (r *run) released(s step) error {
	for _, name := range s.args {
		if fd, ok := r.fds[name+".w"]; ok {
			delete(r.fds, name+".w")
			_ = unix.Close(fd)
		}
		if err := r.withFD(step{args: []string{name + ".r"}}, func(fd int, _ []string) error { return released(fd) }); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) mapped(s step) error {
	return r.withFD(s, func(fd int, _ []string) error { return mapped(fd) })
}

func (r *run) unmapped(s step) error {
	return r.withFD(s, func(fd int, rest []string) error { return unmapped(fd, slices.Equal(rest, []string{"eventually"})) })
}
