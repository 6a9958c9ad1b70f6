package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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
