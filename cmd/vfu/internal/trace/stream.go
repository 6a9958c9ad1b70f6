package trace

import (
	"context"
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors the kernel lets one message carry (SCM_MAX_FD).
const maxFDs = 253

// errDescriptors ends a session whose descriptors can no longer be passed on.
var errDescriptors = errors.New("a message carries more descriptors than this process may open (see ulimit -n)")

// stream is one end of a connected stream socket. Calls block whether or not the
// descriptor does; shutdown ends them.
type stream struct{ fd int }

// dial connects to the server's socket.
func dial(ctx context.Context, path string) (stream, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return stream{-1}, err
	}
	return take(conn.(*net.UnixConn))
}

// take makes a stream of a connection, which it closes: the runtime's poller would have
// to wake another thread for every message.
func take(conn *net.UnixConn) (stream, error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return stream{-1}, err
	}
	fd := -1
	if e := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return stream{-1}, e
	}
	if err != nil {
		return stream{-1}, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return stream{-1}, err
	}
	return stream{fd}, nil
}

// peek looks at the bytes up to the end of the next that were sent with descriptors, and
// tells whether there are any. (Without room for them the kernel says that they were cut
// off. It says so even if buf ends before they come.)
func (s stream) peek(buf []byte) (n int, attached bool, err error) {
	n, _, flags, err := s.recvmsg(buf, nil, unix.MSG_PEEK)
	return n, flags&unix.MSG_CTRUNC != 0, err
}

// read waits for bytes; control is room for descriptors.
func (s stream) read(buf, control []byte) (n int, fds []int, err error) {
	n, ncontrol, flags, err := s.recvmsg(buf, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, nil, err
	}
	if messages, err := unix.ParseSocketControlMessage(control[:ncontrol]); err == nil {
		for i := range messages {
			if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		closeAll(fds)
		return n, nil, errDescriptors
	}
	return n, fds, nil
}

func (s stream) recvmsg(buf, control []byte, flags int) (n, ncontrol, got int, err error) {
	for {
		n, ncontrol, got, _, err = unix.Recvmsg(s.fd, buf, control, flags)
		switch {
		case err == unix.EAGAIN:
			s.wait(unix.POLLIN)
		case err == unix.EINTR:
		case err != nil:
			return 0, 0, 0, err
		case n == 0:
			return 0, 0, 0, io.EOF
		default:
			return n, ncontrol, got, nil
		}
	}
}

// send sends all of b, with descriptors attached to its first byte.
func (s stream) send(b []byte, fds []int) error {
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(s.fd, b, control, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			b, control = b[n:], nil
		case unix.EINTR:
		case unix.EAGAIN:
			s.wait(unix.POLLOUT)
		default:
			return err
		}
	}
	return nil
}

// wait is for descriptors that do not block by themselves.
func (s stream) wait(events int16) {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: events}}, -1)
}

// isUnixStream tells whether fd is a socket as a session has them: shutdown wakes who
// waits on it, which it does not for every kind.
func isUnixStream(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return false
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_STREAM
}

// gone tells whether the peer has closed its end, or is about to find that we have.
func (s stream) gone() bool {
	p := []unix.PollFd{{Fd: int32(s.fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

func (s stream) shutdown(how int) { _ = unix.Shutdown(s.fd, how) }

func (s stream) close() { _ = unix.Close(s.fd) }
