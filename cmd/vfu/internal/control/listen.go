package control

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/internal/unixsocket"
)

// listenQueue is the length of the queue of connections that are not yet accepted.
const listenQueue = 32

// listener is a unix socket that only the process's user may connect to.
type listener struct {
	net.Listener
	file unixsocket.File
	once sync.Once
	err  error
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
	fd, file, err := unixsocket.Listen(path, 0o600, listenQueue)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // (net has a duplicate)
	l := &listener{file: file}
	if l.Listener, err = net.FileListener(f); err != nil {
		file.Remove()
		return nil, err
	}
	return l, nil
}

// Close stops listening and removes the file, if it still is this socket. Idempotent.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.file.Remove()
		l.err = l.Listener.Close()
	})
	return l.err
}
