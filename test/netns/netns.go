package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this process may not make namespaces; the error that wraps it
// says why.
var ErrUnavailable = errors.New("network namespaces are not available here")

// Namespace is a network namespace. Its methods may be called from any goroutine.
type Namespace struct {
	file *os.File
}

// threadNamespace names the namespace of the thread that opens it.
const threadNamespace = "/proc/thread-self/ns/net"

// New makes a namespace in which the loopback interface is up and addresses of IPv6 are
// used without a search for duplicates, which takes a second.
func New() (*Namespace, error) {
	n := &Namespace{}
	err := apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			if errors.Is(err, unix.EPERM) {
				return fmt.Errorf("%w: they take root", ErrUnavailable)
			}
			return fmt.Errorf("make a network namespace: %w", err)
		}
		file, err := os.Open(threadNamespace)
		if err != nil {
			return err
		}
		n.file = file
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = n.Do(func() error {
		for _, which := range []string{"all", "default"} {
			path := "/proc/sys/net/ipv6/conf/" + which + "/accept_dad"
			if err := os.WriteFile(path, []byte("0"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return setUp("lo")
	})
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close lets go of the namespace. What runs in it, and sockets opened in it, keep it.
func (n *Namespace) Close() error { return n.file.Close() }

// Do calls f on a thread that is in the namespace: sockets that f opens belong to it, and so
// do programs that f starts.
func (n *Namespace) Do(f func() error) error {
	return apart(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// Start starts a program in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Run runs a program in the namespace to its end. The error holds what it printed.
func (n *Namespace) Run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var output []byte
	err := n.Do(func() (err error) {
		output, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return string(output), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(output)))
	}
	return string(output), nil
}

// Listen listens in the namespace. The address must be numeric.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Dial connects from the namespace. The address must be numeric.
func (n *Namespace) Dial(network, address string) (c net.Conn, err error) {
	err = n.Do(func() (err error) {
		c, err = net.Dial(network, address)
		return err
	})
	return c, err
}

// apart calls f with a thread of its own, which goes back to this process's namespace. A
// thread that cannot go back ends.
func apart(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := func() error {
			home, err := os.Open(threadNamespace)
			if err != nil {
				return err
			}
			defer home.Close()
			err = f()
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			return err
		}()
		result <- err
	}()
	return <-result
}

// setUp sets an interface up.
func setUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
