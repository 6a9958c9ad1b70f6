package bench

import (
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

func echoesName(how string, clients int) string {
	return fmt.Sprintf("socket-echo/%s/clients=%d", how, clients)
}

func sessionLimits() (limits []Limit) {
	for _, n := range sessionNumbers {
		limits = append(limits, Limit{Name: echoesName("in-turn", n), Setup: func(env *Env) (Subject, error) { return echoesSubject(env, n, 1, inTurn) }})
	}
	for _, n := range parallelNumbers {
		limits = append(limits, Limit{Name: echoesName("parallel", n), Setup: func(env *Env) (Subject, error) { return echoesSubject(env, n, n, inParallel) }})
	}
	return append(limits,
		Limit{Name: "socket-attach", Setup: func(env *Env) (Subject, error) {
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
		Limit{Name: "socket-listen", Setup: func(env *Env) (Subject, error) {
			path := devicePath(env, 0)
			return Subject{Run: repeat(func() error {
				fd, err := listen(path)
				if err != nil {
					return err
				}
				return errors.Join(unix.Close(fd), unix.Unlink(path))
			})}, nil
		}})
}

// echoesSubject is a bare server with so many clients, of which some ask at a time.
func echoesSubject(env *Env, clients, underWay int, how func(fds []int, ask func(fd int, reply []byte) error) func(n int) error) (Subject, error) {
	if err := needFiles(clients); err != nil {
		return Subject{}, err
	}
	e := oneRead.echo()
	if _, err := spawnListening(env, "echoes", e.request, e.reply); err != nil {
		return Subject{}, err
	}
	var fds []int
	for range clients {
		fd, err := connect(devicePath(env, 0))
		if err != nil {
			return Subject{}, err
		}
		env.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
	}
	request := make([]byte, e.request)
	run := how(fds, func(fd int, reply []byte) error {
		if err := sendAll(fd, request); err != nil {
			return err
		}
		for got := 0; got < len(reply); {
			n, err := recvSome(fd, reply[got:])
			if err != nil {
				return err
			}
			got += n
		}
		return nil
	})
	return Subject{Run: run, UnderWay: underWay}, run(clients)
}

// playEchoes is a server with any number of clients that answers each so many bytes with so many
// others, one request at a time. It says when it listens.
func playEchoes(fd int, args []int) error {
	if len(args) != 2 || args[0] == 0 || args[1] == 0 {
		return errRole
	}
	debug.SetGCPercent(-1) // nobody else runs, and calls are not the scheduler's
	listening, err := listen(deviceName(0))
	if err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	add := func(fd int) error {
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err := errors.Join(add(fd), add(listening)); err != nil {
		return err
	}
	if err := sendAll(fd, []byte{0}); err != nil {
		return err
	}
	in, out := make([]byte, args[0]), make([]byte, args[1])
	var events [64]unix.EpollEvent
	var m rawMessage
	for {
		n, e := rawEpollWait(epoll, events[:])
		if e != 0 && e != unix.EINTR {
			return e
		}
		for _, event := range events[:max(n, 0)] {
			switch int(event.Fd) {
			case fd:
				return nil
			case listening:
				client, _, err := unix.Accept4(listening, unix.SOCK_CLOEXEC)
				if err != nil {
					return err
				}
				if err := add(client); err != nil {
					return err
				}
				continue
			}
			n, e := m.call(unix.SYS_RECVMSG, int(event.Fd), in, unix.MSG_DONTWAIT)
			if e == 0 && n == len(in) {
				_, e = m.call(unix.SYS_SENDMSG, int(event.Fd), out, unix.MSG_NOSIGNAL)
			}
			if e != 0 || n < len(in) {
				unix.Close(int(event.Fd)) // the client is gone
			}
		}
	}
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
