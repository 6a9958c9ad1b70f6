package bench

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
)

var sessionNumbers = []int{1, 10, 100, 1000}

// spareDevices are free for clients that come and go: so many that a client is gone for good
// before its device's next one comes.
const spareDevices = 16

// oneRead is a read of a register.
var oneRead = message{size: 4, depth: 1}

// sessionCases are what one message costs with many clients, all on one reactor, asking in
// turn, or several at the same time; and what it costs with many clients that one more comes
// and goes, or one more device. Limits are those of a server with one client.
func sessionCases() (cases []Case) {
	for _, n := range sessionNumbers {
		cases = append(cases,
			Case{
				Name: fmt.Sprintf("sessions/read/sessions=%d", n), Quick: n == 100, Bytes: 4, Limit: oneRead.echo().limit(),
				Setup: func(env *Env) (Subject, error) { return sessionSubject(env, n) },
			}, Case{
				Name: fmt.Sprintf("sessions/attach/sessions=%d", n), Full: n == 10, Limit: "socket-attach",
				Setup: func(env *Env) (Subject, error) { return attachSubject(env, n) },
			})
	}
	for _, n := range []int{2, 8, 32} {
		cases = append(cases, Case{
			Name: fmt.Sprintf("sessions/parallel/clients=%d", n), Full: n != 8, Bytes: 4, Limit: oneRead.echo().limit(),
			Setup: func(env *Env) (Subject, error) { return parallelSubject(env, n) },
		})
	}
	return append(cases, Case{Name: "sessions/register", Limit: "socket-listen", Setup: registerSubject})
}

func sessionSubject(env *Env, sessions int) (Subject, error) {
	fds, err := connectAll(env, sessions, sessions)
	if err != nil {
		return Subject{}, err
	}
	request, reply := oneRead.bytes(), make([]byte, oneRead.echo().reply)
	next := 0
	run := repeat(func() error {
		fd := fds[next]
		if next++; next == len(fds) {
			next = 0
		}
		return exchange(fd, request, reply)
	})
	return Subject{Run: run}, run(sessions)
}

func parallelSubject(env *Env, clients int) (Subject, error) {
	fds, err := connectAll(env, clients, clients)
	if err != nil {
		return Subject{}, err
	}
	request := oneRead.bytes()
	return Subject{UnderWay: clients, Run: func(n int) error {
		var left atomic.Int64
		left.Store(int64(n))
		errs := make([]error, len(fds))
		var all sync.WaitGroup
		for i, fd := range fds {
			all.Go(func() {
				reply := make([]byte, oneRead.echo().reply)
				for left.Add(-1) >= 0 && errs[i] == nil {
					errs[i] = exchange(fd, request, reply)
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}}, nil
}

func attachSubject(env *Env, sessions int) (Subject, error) {
	if _, err := connectAll(env, sessions+spareDevices, sessions); err != nil {
		return Subject{}, err
	}
	next := 0
	run := repeat(func() error {
		fd, err := connect(devicePath(env, sessions+next))
		if err != nil {
			return err
		}
		next = (next + 1) % spareDevices
		err = negotiate(fd)
		unix.Close(fd)
		return err
	})
	return Subject{Run: run}, run(spareDevices)
}

func registerSubject(env *Env) (Subject, error) {
	e, err := engine.New(engine.Config{})
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { e.Close() })
	path := devicePath(env, 0)
	return Subject{Run: repeat(func() error {
		ep, err := e.Register(path, newRegisters(smallBAR))
		if err != nil {
			return err
		}
		return errors.Join(ep.Start(), ep.Close())
	})}, nil
}

func sessionLimits() []Limit {
	return []Limit{
		{Name: "socket-attach", Setup: func(env *Env) (Subject, error) {
			if _, err := spawnListening(env, "accept", 1); err != nil {
				return Subject{}, err
			}
			path := devicePath(env, 0)
			request, reply := make([]byte, acceptedBytes), make([]byte, acceptedBytes)
			run := repeat(func() error {
				fd, err := connect(path)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := sendAll(fd, request); err != nil {
					return err
				}
				_, err = recvSome(fd, reply)
				return err
			})
			return Subject{Run: run}, run(1)
		}},
		{Name: "socket-listen", Setup: func(env *Env) (Subject, error) {
			path := devicePath(env, 0)
			return Subject{Run: repeat(func() error {
				fd, err := listen(path)
				if err != nil {
					return err
				}
				return errors.Join(unix.Close(fd), unix.Unlink(path))
			})}, nil
		}},
	}
}

// connectAll starts devices in a process of its own and opens sessions with the first of them.
func connectAll(env *Env, devices, sessions int) ([]int, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	// A listening socket each, sessions, and what there is besides.
	if need := uint64(devices + sessions + 64); files.Cur < need {
		return nil, fmt.Errorf("%w: %d descriptors, where %d are needed", ErrUnavailable, files.Cur, need)
	}
	if _, err := spawnListening(env, "devices", devices); err != nil {
		return nil, err
	}
	var fds []int
	for i := range sessions {
		fd, err := connect(devicePath(env, i))
		if err != nil {
			return nil, err
		}
		env.Cleanup(func() { unix.Close(fd) })
		if err := negotiate(fd); err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// spawnListening starts a peer and waits until it listens.
func spawnListening(env *Env, role string, args ...int) (int, error) {
	fd, err := spawn(env, role, args...)
	if err == nil {
		_, err = recvSome(fd, make([]byte, 1))
	}
	return fd, err
}

func deviceName(i int) string { return fmt.Sprintf("d%d", i) }

func devicePath(env *Env, i int) string { return filepath.Join(env.Dir, deviceName(i)) }

func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func listen(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Listen(fd, 16); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// playDevices listens for so many devices in the current folder, says so, and serves them until
// the connection ends.
func playDevices(fd int, args []int) error {
	if len(args) != 1 {
		return errRole
	}
	e, err := engine.New(engine.Config{})
	if err != nil {
		return err
	}
	for i := range args[0] {
		ep, err := e.Register(deviceName(i), newRegisters(smallBAR))
		if err != nil {
			return err
		}
		if err := ep.Start(); err != nil {
			return err
		}
	}
	if err := sendAll(fd, []byte{0}); err != nil {
		return err
	}
	_, _ = unix.Read(fd, make([]byte, 1)) // its end is what is waited for
	return e.Close()
}

// acceptedBytes is about what VERSION takes, both ways.
const acceptedBytes = 128

// playAccept is a server with one client after the other, each of which sends something and
// gets it back. It says when it listens.
func playAccept(fd int, _ []int) error {
	listening, err := listen(deviceName(0))
	if err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for _, fd := range []int{fd, listening} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	if err := sendAll(fd, []byte{0}); err != nil {
		return err
	}
	var events [1]unix.EpollEvent
	buf := make([]byte, 4096)
	for {
		n, e := rawEpollWait(epoll, events[:])
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return e
		case n == 1 && int(events[0].Fd) == fd:
			return nil
		}
		client, _, err := unix.Accept4(listening, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		for {
			n, err := unix.Read(client, buf)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 || err != nil || sendAll(client, buf[:n]) != nil {
				break
			}
		}
		unix.Close(client)
	}
}
