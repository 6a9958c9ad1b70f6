package unixsocket

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is the file of a listening socket. The zero value is that of none.
type File struct {
	path     string
	dev, ino uint64 // as it was made: another server may replace it
}

// Listen makes a socket, which does not block, with a queue of so many connections that are not
// yet accepted. Who may connect is told by mode, as that of a file; 0 leaves it to the umask.
func Listen(path string, mode uint32, queue int) (fd int, file File, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, File{}, err
	}
	if mode != 0 {
		// The file that bind makes takes its mode from the socket: nobody else can connect at any time.
		err = unix.Fchmod(fd, mode)
	}
	if err == nil {
		err = bind(fd, path)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Lstat(path, &st)
	}
	if err == nil {
		file = File{path, st.Dev, st.Ino}
		err = unix.Listen(fd, queue)
	}
	if err != nil {
		file.Remove()
		_ = unix.Close(fd)
		return -1, File{}, explain(err, path)
	}
	return fd, file, nil
}

func bind(fd int, path string) error {
	name := &unix.SockaddrUnix{Name: path}
	err := unix.Bind(fd, name)
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path, name); err == nil {
			err = unix.Bind(fd, name)
		}
	}
	return err
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

// Remove removes the file if it still is that of this socket.
func (f File) Remove() {
	var st unix.Stat_t
	if f.path != "" && unix.Lstat(f.path, &st) == nil && st.Dev == f.dev && st.Ino == f.ino {
		_ = unix.Unlink(f.path)
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
