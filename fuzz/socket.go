package fuzz

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// socket is a client's end of a connection.
type socket struct {
	fd   int
	in   []byte // received and not taken
	cut  codec.Cutter
	over bool // the server has closed its end, and everything is received
}

// listen makes a listening socket with an address that the kernel chooses.
func listen() (fd int, address string, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{}); err == nil {
		err = unix.Listen(fd, 16)
	}
	if err == nil {
		var bound unix.Sockaddr
		if bound, err = unix.Getsockname(fd); err == nil {
			return fd, bound.(*unix.SockaddrUnix).Name, nil
		}
	}
	_ = unix.Close(fd)
	return -1, "", err
}

// dial connects to it.
func dial(address string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &socket{fd: fd}, nil
}

func (s *socket) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
	}
	reactor.CloseFDs(s.cut.Close())
	*s = socket{fd: -1, over: true}
}

// send sends what the socket takes of b at once; descriptors go with the first byte.
func (s *socket) send(b []byte, fds []int) (n int, err error) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		n, err = unix.SendmsgN(s.fd, b, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// receive takes what is there, without waiting, and says whether something was.
func (s *socket) receive() (some bool, err error) {
	var buf [64 << 10]byte
	var oob [1024]byte
	for !s.over {
		n, noob, flags, _, err := unix.Recvmsg(s.fd, buf[:], oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return some, nil
		case err == unix.ECONNRESET, err == nil && n == 0:
			s.over = true
			return true, nil
		case err != nil:
			return some, err
		case flags&unix.MSG_CTRUNC != 0:
			return some, errors.New("more descriptors with a message than any may have")
		}
		some = true
		s.in = append(s.in, buf[:n]...)
		if noob > 0 {
			if err := s.rights(oob[:noob]); err != nil {
				return some, err
			}
		}
		if n < len(buf) && noob == 0 {
			return some, nil
		}
	}
	return some, nil
}

func (s *socket) rights(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		got, e := unix.ParseUnixRights(&messages[i])
		err = errors.Join(err, e)
		reactor.CloseFDs(s.cut.Arrived(s.in, got, false, reactor.MaxFDs))
	}
	return err
}

// next takes a message that has come whole. Its payload is valid until the next receive, its
// descriptors are the caller's.
func (s *socket) next() (m incoming, ok bool, err error) {
	h, size, err := s.cut.Cut(s.in, maxReply)
	if err != nil || size == 0 {
		return m, false, err
	}
	m = incoming{Header: h, payload: s.in[codec.HeaderSize:size]}
	s.in = s.in[size:]
	fds, _ := s.cut.FDs()
	m.fds = append(m.fds, fds...)
	return m, true, nil
}

// incoming is a message of the server.
type incoming struct {
	codec.Header
	payload []byte
	fds     []int
}

// maxReply is more than any message of a server takes, in bytes.
const maxReply = 4 << 20

// waitFor waits until one of the sockets has something to be received, or takes something if it
// is named by full. It returns false if that hangs.
func waitFor(limit time.Duration, full *socket, sockets ...*socket) bool {
	var polls [3]unix.PollFd
	n := 0
	for _, s := range sockets {
		if s == nil || s.over {
			continue
		}
		polls[n] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
		if s == full {
			polls[n].Events |= unix.POLLOUT
		}
		n++
	}
	for range moments(limit) {
		if ready, _ := unix.Poll(polls[:n], int(moment.Milliseconds())); ready > 0 {
			return true
		}
	}
	return false
}
