package conformance

import (
	"errors"
	"fmt"
)

// expect wants a command of the server.
func (r *run) expect(s step) error {
	c, w, l, err := r.command(s)
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
	raw := c.toldRaw
	for _, f := range l.fields {
		v, rest, _ := takeNumber(raw, f.size)
		raw = rest
		if _, named := w.fields[f.name]; !named {
			w.fields[f.name] = fmt.Sprint(v)
		}
	}
	b, err := r.payload(&w, l)
	if err != nil {
		return err
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
