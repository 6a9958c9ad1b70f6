package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// listenQueue is the length of the queue of connections that are not yet accepted.
const listenQueue = 32

// listener is a unix socket that only the process's user may connect to.
type listener struct {
	net.Listener
	path     string
	dev, ino uint64 // the socket file as it was made: another server may replace it
	once     sync.Once
	err      error
}

// listen makes the socket. A file that a dead server left behind is replaced.
func listen(path string) (*listener, error) {
	l, err := listenAt(path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return l, nil
}

func listenAt(path string) (*listener, error) {
	if strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("any user may connect to an abstract socket; name a file, or ./%s: %w", path, unix.EINVAL)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // (net has a duplicate)
	// The file that bind makes takes its mode from the socket: nobody else can connect at any time.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, err
	}
	name := &unix.SockaddrUnix{Name: path}
	err = unix.Bind(fd, name)
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path, name); err == nil {
			err = unix.Bind(fd, name)
		}
	}
	if err != nil {
		return nil, explain(err, path)
	}
	l := &listener{path: path}
	var st unix.Stat_t
	if err = unix.Lstat(path, &st); err == nil {
		l.dev, l.ino = st.Dev, st.Ino
		err = unix.Listen(fd, listenQueue)
	}
	if err == nil {
		l.Listener, err = net.FileListener(file)
	}
	if err != nil {
		l.unlink()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket file that nobody listens on.
func removeStale(path string, name unix.Sockaddr) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
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
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: alive, its queue is full
		return fmt.Errorf("another server listens there: %w", unix.EADDRINUSE)
	case errors.Is(err, unix.ECONNREFUSED):
		return unix.Unlink(path)
	default:
		return fmt.Errorf("a socket is there and cannot be asked whether it is alive: %w", err)
	}
}

// explain adds what the errno alone does not say.
func explain(err error, path string) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the directory %s does not exist: %w", filepath.Dir(path), err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("no permission to create a socket in %s: %w", filepath.Dir(path), err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENAMETOOLONG):
		return fmt.Errorf("the path has %d bytes, a unix socket's has at most 107: %w", len(path), err)
	}
	return err
}

// Close stops listening and removes the file, if it still is this socket. Idempotent.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.unlink()
		l.err = l.Listener.Close()
	})
	return l.err
}

func (l *listener) unlink() {
	var st unix.Stat_t
	if unix.Lstat(l.path, &st) == nil && st.Dev == l.dev && st.Ino == l.ino {
		_ = unix.Unlink(l.path)
	}
}
