package hostile

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// raw is a connection to the victim that sends whatever an attack wants. One goroutine
// uses it.
type raw struct {
	a    *attack
	fd   int
	last uint16 // message id
	in   []byte // received and not yet taken
	fds  []int  // descriptors received and not yet taken

	// serve answers a command of the server. nil leaves all of them unanswered.
	serve func(h codec.Header, payload []byte)
}

// dial connects to the victim. The connection is closed when the attack is over.
func (a *attack) dial() *raw {
	a.Helper()
	fd, err := connect(a.lab.victim.Path())
	if err != nil {
		a.Fatal(err)
	}
	c := &raw{a: a, fd: fd}
	a.atEnd(c.close)
	return c
}

// connect waits while the backlog is full.
func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// session is a negotiated connection.
func (a *attack) session() *raw {
	a.Helper()
	return a.dial().negotiate()
}

func (c *raw) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
	reactor.CloseFDs(c.fds)
	c.fds = nil
}

// send sends bytes, and descriptors with the first of them. It fails if the server has
// hung up.
func (c *raw) send(b []byte, fds ...int) error {
	for len(b) > 0 {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		n, err := unix.SendmsgN(c.fd, b, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, fds = b[n:], nil
	}
	return nil
}

// must sends to a server that listens.
func (c *raw) must(b []byte, fds ...int) {
	c.a.Helper()
	if err := c.send(b, fds...); err != nil {
		c.a.Fatalf("send: %v", err)
	}
}

// message is a command with its header.
func (c *raw) message(cmd codec.Command, flags codec.Flags, payload []byte) []byte {
	c.last++
	h := codec.Header{ID: c.last, Command: cmd, Size: uint32(codec.HeaderSize + len(payload)), Flags: flags}
	return append(h.Append(nil), payload...)
}

// fill receives once.
func (c *raw) fill(flags int) error {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(reactor.MaxFDs*4))
	n, noob, _, _, err := unix.Recvmsg(c.fd, buf, oob, flags|unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR { // which a time-out of the socket does not let the kernel repeat
		n, noob, _, _, err = unix.Recvmsg(c.fd, buf, oob, flags|unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	c.in = append(c.in, buf[:n]...)
	messages, err := unix.ParseSocketControlMessage(oob[:noob])
	for i := range messages {
		got, e := unix.ParseUnixRights(&messages[i])
		err = errors.Join(err, e)
		c.fds = append(c.fds, got...)
	}
	return err
}

// next takes a message out of what has come; ok is false if there is none.
func (c *raw) next() (h codec.Header, payload []byte, ok bool) {
	h, err := codec.DecodeHeader(c.in)
	if err != nil || int(h.Size) > len(c.in) {
		return h, nil, false
	}
	payload = c.in[codec.HeaderSize:h.Size]
	c.in = c.in[h.Size:]
	return h, payload, true
}

// reply waits for the next reply; commands of the server are served meanwhile.
func (c *raw) reply() (codec.Header, []byte, error) {
	for {
		h, payload, ok := c.next()
		switch {
		case ok && h.IsReply():
			return h, payload, nil
		case ok && c.serve != nil:
			c.serve(h, payload)
		case !ok:
			if err := c.fill(0); err != nil {
				return h, nil, err
			}
		}
	}
}

// pump serves the server's commands that have come, without waiting for any.
func (c *raw) pump() error {
	for {
		h, payload, ok := c.next()
		if !ok {
			err := c.fill(unix.MSG_DONTWAIT)
			if err == unix.EAGAIN {
				return nil
			}
			if err != nil {
				return err
			}
			continue
		}
		if h.IsReply() {
			c.a.Fatalf("reply to %v, which was not awaited", h.Command)
		}
		if c.serve != nil {
			c.serve(h, payload)
		}
	}
}

// try sends a command and returns what the server answers: an errno, or why there is no
// answer.
func (c *raw) try(cmd codec.Command, payload []byte, fds ...int) ([]byte, error) {
	if err := c.send(c.message(cmd, 0, payload), fds...); err != nil {
		return nil, err
	}
	id := c.last
	h, answer, err := c.reply()
	if err != nil {
		return nil, err
	}
	if h.ID != id || h.Command != cmd {
		c.a.Fatalf("reply to %v %d, %v %d was sent", h.Command, h.ID, cmd, id)
	}
	if h.IsError() {
		return nil, unix.Errno(h.Errno)
	}
	return answer, nil
}

// call is try for a command that must succeed.
func (c *raw) call(cmd codec.Command, payload []byte, fds ...int) []byte {
	c.a.Helper()
	answer, err := c.try(cmd, payload, fds...)
	if err != nil {
		c.a.Fatalf("%v: %v", cmd, err)
	}
	return answer
}

// refused is try for a command that must fail.
func (c *raw) refused(want unix.Errno, cmd codec.Command, payload []byte, fds ...int) {
	c.a.Helper()
	if _, err := c.try(cmd, payload, fds...); err != want {
		c.a.Errorf("%v: %v, want %v", cmd, err, want)
	}
}

// post sends a command that wants no answer.
func (c *raw) post(cmd codec.Command, payload []byte) {
	c.a.Helper()
	c.must(c.message(cmd, codec.FlagNoReply, payload))
}

// negotiate is VERSION.
func (c *raw) negotiate() *raw {
	c.a.Helper()
	v := codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{MaxMsgFDs: 16, MaxDataXferSize: 1 << 20, PgSizes: pageSize}}
	c.call(codec.CmdVersion, v.Append(nil))
	return c
}

// alive checks that the server still serves this connection.
func (c *raw) alive() {
	c.a.Helper()
	c.call(codec.CmdGetInfo, (&codec.DeviceInfo{ArgSz: codec.DeviceInfoSize}).Append(nil))
}

// ended waits until the server has hung up; replies that come before are dropped.
func (c *raw) ended() {
	c.a.Helper()
	begin := time.Now()
	for {
		c.in = c.in[:0]
		switch err := c.fill(0); err {
		case nil:
			continue
		case io.EOF, unix.ECONNRESET, unix.EPIPE:
			return
		default:
			c.a.Fatalf("the server keeps the connection for %v: %v", time.Since(begin), err)
		}
	}
}
