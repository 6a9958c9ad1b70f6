package conformance

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a server may take for anything.
const patience = 10 * time.Second

// maxFDs is how many descriptors the kernel passes in one message (SCM_MAX_FD).
const maxFDs = 253

// errEOF says that the peer has hung up.
var errEOF = errors.New("the server has hung up")

// conn is one end of a stream socket.
type conn struct {
	fd   int
	next uint16 // id of the next command
	// asked are the commands sent whose replies have not come, oldest first.
	asked []header
	// told is the last command that the server sent.
	told    header
	toldRaw []byte // its payload
	queue   []byte // commands that wait for the next send
	fds     []int  // that go with the queue
}

// sendAll sends b in pieces of the given size (0: at once); descriptors go with the first.
func (c *conn) sendAll(b []byte, piece int, fds []int) error {
	if piece <= 0 {
		piece = max(len(b), 1)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	deadline := time.Now().Add(patience)
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b[:min(piece, len(b))], oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := c.wait(unix.POLLOUT, deadline); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		case err == unix.EPIPE || err == unix.ECONNRESET:
			return fmt.Errorf("send: %w", errEOF)
		case err != nil:
			return fmt.Errorf("send: %w", err)
		default:
			b, oob = b[n:], nil
		}
	}
	return nil
}

// wait waits until the socket is ready.
func (c *conn) wait(events int16, deadline time.Time) error {
	return waitFD(c.fd, events, deadline)
}

func waitFD(fd int, events int16, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("nothing in %v", patience)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// message is one message as it came.
type message struct {
	header
	payload []byte
	fds     []int
	// whole says that the payload was there together with the header, as it is if both
	// left in one sendmsg.
	whole bool
}

// receive takes the next message off the socket.
func (c *conn) receive() (message, error) {
	m := message{}
	deadline := time.Now().Add(patience)
	var head [headerSize]byte
	if _, err := c.fill(head[:], &m, deadline); err != nil {
		return m, err
	}
	m.header = parseHeader(head[:])
	if m.size < headerSize || m.size > headerSize+maxPattern {
		return m, fmt.Errorf("a message says that it has %d bytes", m.size)
	}
	m.payload = make([]byte, m.size-headerSize)
	var err error
	m.whole, err = c.fill(m.payload, &m, deadline)
	return m, err
}

// fill reads until b is full, and says whether one read sufficed that did not wait.
func (c *conn) fill(b []byte, m *message, deadline time.Time) (whole bool, err error) {
	whole = true
	for reads := 0; len(b) > 0; reads++ {
		n, waited, err := c.some(b, m, deadline)
		if err != nil {
			return false, err
		}
		b = b[n:]
		whole = reads == 0 && !waited && len(b) == 0
	}
	return whole, nil
}

// some reads at least one byte; descriptors go to m.
func (c *conn) some(b []byte, m *message, deadline time.Time) (n int, waited bool, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, oobn, flags, _, err := unix.Recvmsg(c.fd, b, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			waited = true
			if err := c.wait(unix.POLLIN, deadline); err != nil {
				return 0, true, fmt.Errorf("receive: %w", err)
			}
			continue
		case err == unix.ECONNRESET:
			return 0, waited, errEOF
		case err != nil:
			return 0, waited, fmt.Errorf("receive: %w", err)
		}
		fds, err := rights(oob[:oobn])
		m.fds = append(m.fds, fds...)
		switch {
		case err != nil:
			return 0, waited, err
		case flags&unix.MSG_CTRUNC != 0:
			return 0, waited, errors.New("descriptors were cut off")
		case n == 0:
			return 0, waited, errEOF
		}
		return n, waited, nil
	}
}

// rest reads to the end of the stream and returns what was there.
func (c *conn) rest() (fds []int, b []byte, err error) {
	deadline := time.Now().Add(patience)
	var m message
	buf := make([]byte, 4096)
	for {
		n, _, err := c.some(buf, &m, deadline)
		if errors.Is(err, errEOF) {
			return m.fds, b, nil
		}
		if err != nil {
			return m.fds, b, fmt.Errorf("the server does not hang up: %w", err)
		}
		if b = append(b, buf[:n]...); len(b) > maxPattern {
			return m.fds, b, errors.New("the server does not stop sending")
		}
	}
}

// rights are the descriptors in a control message.
func rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// DialUnix connects to a socket, and waits for it to be there.
func DialUnix(path string) (int, error) {
	deadline := time.Now().Add(patience)
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return fd, nil
		}
		_ = unix.Close(fd)
		again := err == unix.ENOENT || err == unix.ECONNREFUSED || err == unix.EINTR
		if !again || time.Now().After(deadline) {
			return -1, fmt.Errorf("connect to %s: %w", path, err)
		}
		time.Sleep(5 * time.Millisecond) // a server that is about to start
	}
}
