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

var (
	sessionNumbers  = []int{1, 10, 100, 1000} // that ask in turn
	parallelNumbers = []int{2, 8, 32}         // that ask at the same time
)

// spareDevices are free for clients that come and go: so many that a client is gone for good
// before its device's next one comes.
const spareDevices = 16

// oneRead is a read of a register.
var oneRead = message{size: 4, depth: 1}

// sessionCases are what one message costs with many clients, all on one reactor, asking in
// turn, or several at the same time; and what it costs with many clients that one more comes
// and goes, or one more device. The limits of messages are bare servers with as many clients,
// those of comings and goings a server with one.
func sessionCases() (cases []Case) {
	for _, n := range sessionNumbers {
		cases = append(cases,
			Case{
				Name: fmt.Sprintf("sessions/read/sessions=%d", n), Quick: n == 100, Bytes: 4, Limit: echoesName("in-turn", n),
				Setup: func(env *Env) (Subject, error) { return sessionSubject(env, n) },
			}, Case{
				Name: fmt.Sprintf("sessions/attach/sessions=%d", n), Full: n == 10, Limit: "socket-attach",
				Setup: func(env *Env) (Subject, error) { return attachSubject(env, n) },
			})
	}
	for _, n := range parallelNumbers {
		cases = append(cases, Case{
			Name: fmt.Sprintf("sessions/parallel/clients=%d", n), Full: n != 8, Bytes: 4, Limit: echoesName("parallel", n),
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
	request := oneRead.bytes()
	run := inTurn(fds, func(fd int, reply []byte) error { return exchange(fd, request, reply) })
	return Subject{Run: run}, run(sessions)
}

func parallelSubject(env *Env, clients int) (Subject, error) {
	fds, err := connectAll(env, clients, clients)
	if err != nil {
		return Subject{}, err
	}
	request := oneRead.bytes()
	return Subject{Run: inParallel(fds, func(fd int, reply []byte) error { return exchange(fd, request, reply) }), UnderWay: clients}, nil
}

// inTurn asks on one connection after the other.
func inTurn(fds []int, ask func(fd int, reply []byte) error) func(n int) error {
	reply, next := make([]byte, oneRead.echo().reply), 0
	return repeat(func() error {
		fd := fds[next]
		if next++; next == len(fds) {
			next = 0
		}
		return ask(fd, reply)
	})
}

// inParallel asks on all connections at the same time.
func inParallel(fds []int, ask func(fd int, reply []byte) error) func(n int) error {
	return func(n int) error {
		var left atomic.Int64
		left.Store(int64(n))
		errs := make([]error, len(fds))
		var all sync.WaitGroup
		for i, fd := range fds {
			all.Go(func() {
				reply := make([]byte, oneRead.echo().reply)
				for left.Add(-1) >= 0 && errs[i] == nil {
					errs[i] = ask(fd, reply)
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}
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

// needFiles says if there are not as many descriptors, and a few.
func needFiles(n int) error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	if need := uint64(n + 64); files.Cur < need {
		return fmt.Errorf("%w: %d descriptors, where %d are needed", ErrUnavailable, files.Cur, need)
	}
	return nil
}

// connectAll starts devices in a process of its own and opens sessions with the first of them.
func connectAll(env *Env, devices, sessions int) ([]int, error) {
	if err := needFiles(devices + sessions); err != nil { // a listening socket each, and sessions
		return nil, err
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
