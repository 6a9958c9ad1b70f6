package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/internal/unixsocket"
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
	file      unixsocket.File
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
	fd, file, err := unixsocket.Listen(a.path, 0, listenQueue)
	return listener{fd: fd, file: file}, err
}

// close stops listening and removes the socket file.
func (l listener) close() {
	l.file.Remove()
	_ = unix.Close(l.fd)
}
