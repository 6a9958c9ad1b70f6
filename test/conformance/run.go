package conformance

import (
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"
)

// Target is a server.
type Target struct {
	// Dial opens a connection to it.
	Dial func() (fd int, err error)
	// Has says what the device has: see Survey.
	Has map[string]uint64
}

// ErrSkipped is what a case returns that a device lacks something for.
var ErrSkipped = errors.New("skipped")

// Lacks is ErrSkipped with what a device lacks for a case, nil if it lacks nothing.
func (c Case) Lacks(has map[string]uint64) error {
	for _, n := range c.Needs {
		have, region := has[n.What+".size"]
		if !region {
			have = has[n.What]
		}
		if have < n.Min {
			return fmt.Errorf("%w: needs %s %d, the device has %d", ErrSkipped, n.What, n.Min, have)
		}
	}
	return nil
}

// Run runs a case. An error says which line of the case failed and how.
func (c Case) Run(t *Target) (err error) {
	if err := c.Lacks(t.Has); err != nil {
		return err
	}
	r := &run{target: t, vars: maps.Clone(t.Has), conns: map[string]*conn{}, fds: map[string]int{}, blobs: map[string][]byte{}}
	defer r.close()
	for _, s := range c.steps {
		if err := verbs[s.verb](r, s); err != nil {
			return fmt.Errorf("%s: %s: %w", s.pos, s.verb, err)
		}
	}
	return r.end()
}

// run is a case while it runs.
type run struct {
	target *Target
	vars   map[string]uint64
	conns  map[string]*conn
	order  []string // of conns
	fds    map[string]int
	blobs  map[string][]byte
}

func (r *run) scope() scope { return scope{vars: r.vars, blobs: r.blobs} }

// number evaluates an expression of a step.
func (r *run) number(expr string) (uint64, error) { return r.scope().eval(expr) }

// conn finds the connection of a step. A descriptor that came from the server can be one.
func (r *run) conn(s step) (*conn, error) {
	name := s.conn
	if name == "" {
		name = "c"
	}
	if c, ok := r.conns[name]; ok {
		return c, nil
	}
	if fd, ok := r.fds[name]; ok {
		delete(r.fds, name)
		r.add(name, fd)
		return r.conns[name], nil
	}
	return nil, fmt.Errorf("there is no connection %q", name)
}

func (r *run) add(name string, fd int) {
	r.conns[name] = &conn{fd: fd}
	r.order = append(r.order, name)
}

// fd finds a descriptor by its name.
func (r *run) fd(name string) (int, error) {
	fd, ok := r.fds[name]
	if !ok {
		return -1, fmt.Errorf("there is no descriptor %q", name)
	}
	return fd, nil
}

// bind names descriptors that came, or checks that none came if there are no names. The
// name _ is for any number of them.
func (r *run) bind(names []string, fds []int) error {
	if len(names) == 1 && names[0] == "_" {
		closeAll(fds)
		return nil
	}
	if len(fds) != len(names) {
		closeAll(fds)
		return fmt.Errorf("%d descriptors came, want %d", len(fds), len(names))
	}
	for i, name := range names {
		if old, ok := r.fds[name]; ok {
			_ = unix.Close(old)
		}
		r.fds[name] = fds[i]
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// close releases everything.
func (r *run) close() {
	for _, c := range r.conns {
		if c.fd >= 0 {
			_ = unix.Close(c.fd)
		}
	}
	for _, fd := range r.fds {
		_ = unix.Close(fd)
	}
}

// end checks what holds at the end of every case: all that was asked is answered, and
// nothing came that was not asked for. Our half of the connection is closed first, so
// that the server finishes what it may still have to say.
func (r *run) end() error {
	for _, name := range r.order {
		c := r.conns[name]
		if c.fd < 0 {
			continue
		}
		if n := len(c.asked); n > 0 {
			return fmt.Errorf("the case ends with %d replies on %s that it did not look at", n, name)
		}
		if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil && err != unix.ENOTCONN {
			return err
		}
		fds, b, err := c.rest()
		closeAll(fds)
		if err != nil {
			return fmt.Errorf("at the end of the case, on %s: %w", name, err)
		}
		if len(b) > 0 {
			return fmt.Errorf("at the end of the case, on %s: the server sent %d bytes that nobody asked for: %x", name, len(b), b[:min(len(b), 64)])
		}
	}
	return nil
}
