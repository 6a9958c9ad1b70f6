package conformance

import (
	"fmt"

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
