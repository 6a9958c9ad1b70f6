package engine

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// listenQueue is the length of the queue of connections not yet accepted.
const listenQueue = 128

// address is where an endpoint listens: a path, or a descriptor that was inherited.
type address struct {
	path      string
	fd        int
	inherited bool
}

// listener is an open address.
type listener struct {
	fd        int
	connected bool // an inherited socket that has its peer already
	path      string
	dev, ino  uint64 // the socket file as it was made: another server may replace it
}

func (a address) String() string {
	if a.inherited {
		return fmt.Sprintf("descriptor %d", a.fd)
	}
	return a.path
}

// open listens on the address.
func (a address) open() (listener, error) {
	open := a.listen
	if a.inherited {
		open = a.adopt
	}
	l, err := open()
	if err != nil {
		return l, fmt.Errorf("engine: listen on %s: %w", a, err)
	}
	return l, nil
}

func (a address) adopt() (listener, error) {
	fail := func(err error) (listener, error) { return listener{fd: -1}, err }
	domain, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fail(err)
	}
	kind, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fail(err)
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_STREAM {
		return fail(errors.New("is not a unix stream socket"))
	}
	listening, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return fail(err)
	}
	if err := unix.SetNonblock(a.fd, true); err != nil {
		return fail(err)
	}
	unix.CloseOnExec(a.fd)
	return listener{fd: a.fd, connected: listening == 0}, nil
}

func (a address) listen() (listener, error) {
	name := &unix.SockaddrUnix{Name: a.path}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return listener{fd: -1}, err
	}
	err = unix.Bind(fd, name)
	if errors.Is(err, unix.EADDRINUSE) {
		if err = a.removeStale(name); err == nil {
			err = unix.Bind(fd, name)
		}
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Lstat(a.path, &st)
	}
	if err == nil {
		err = unix.Listen(fd, listenQueue)
	}
	if err != nil {
		_ = unix.Close(fd)
		return listener{fd: -1}, explain(err, a.path)
	}
	return listener{fd: fd, path: a.path, dev: st.Dev, ino: st.Ino}, nil
}

// removeStale removes a socket file that nobody listens on.
func (a address) removeStale(name unix.Sockaddr) error {
	var st unix.Stat_t
	if err := unix.Lstat(a.path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("the path exists and is not a socket: %w", unix.EADDRINUSE)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, name); {
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: alive, its backlog is full
		return fmt.Errorf("another server listens there: %w", unix.EADDRINUSE)
	case errors.Is(err, unix.ECONNREFUSED):
		return unix.Unlink(a.path)
	default:
		return fmt.Errorf("a socket is there and cannot be asked whether it is alive: %w", err)
	}
}

// close stops listening and removes the socket file.
func (l listener) close() {
	l.unlink()
	_ = unix.Close(l.fd)
}

// unlink removes the socket file if it still is this one.
func (l listener) unlink() {
	var st unix.Stat_t
	if l.path != "" && unix.Lstat(l.path, &st) == nil && st.Dev == l.dev && st.Ino == l.ino {
		_ = unix.Unlink(l.path)
	}
}

// explain adds what the errno alone does not say.
func explain(err error, path string) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the directory %s does not exist: %w", filepath.Dir(path), err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("no permission to create a socket in %s: %w", filepath.Dir(path), err)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENAMETOOLONG):
		return fmt.Errorf("the path has %d bytes, a unix socket's has at most 107: %w", len(path), err)
	}
	return err
}
