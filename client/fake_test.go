package client

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// testTimeout ends a test that hangs; nothing waits for it otherwise.
const testTimeout = 10 * time.Second

// server is the other end of a session, driven by a script: it sends what a test tells it to, right or wrong.
type server struct {
	t  testing.TB
	fd int
}

// wire is a message as the script sees it.
type wire struct {
	codec.Header
	payload []byte
	fds     []int
}

// checkLeaks fails the test if it leaves a goroutine or a descriptor behind. Call it first: it looks last.
func checkLeaks(t *testing.T) {
	t.Helper()
	before := openFDs(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t)
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors were open before the test, %d are now", before, after)
		}
	})
}

func openFDs(t *testing.T) int {
	t.Helper()
	// The runtime opens its own poller with the first file; have it open.
	e, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// newServer returns a server and the client's end of its socket. script runs in a goroutine that is waited for.
func newServer(t *testing.T, script func(*server)) (clientFD int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	timeout := unix.NsecToTimeval(testTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(pair[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, fd: pair[1]}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.close()
		script(s)
	}()
	t.Cleanup(func() { <-done })
	return pair[0]
}

// attach attaches to a server that negotiates and then follows the script until the client hangs up.
func attach(t *testing.T, script func(*server), opts ...Option) *Device {
	t.Helper()
	checkLeaks(t)
	attached := make(chan struct{})
	fd := newServer(t, func(s *server) {
		s.handshake()
		<-attached
		script(s)
		if s.fd >= 0 {
			s.untilEOF()
		}
	})
	d, err := AttachFD(testContext(t), fd, opts...)
	close(attached)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (s *server) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// read fills b; false at the end of the stream.
func (s *server) read(b []byte, fds *[]int) bool {
	for len(b) > 0 {
		oob := make([]byte, controlSize)
		n, noob, _, _, err := unix.Recvmsg(s.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			if err != nil && err != unix.ECONNRESET {
				s.t.Errorf("fake server: receive: %v", err)
			}
			return false
		}
		if noob > 0 {
			messages, _ := unix.ParseSocketControlMessage(oob[:noob])
			for i := range messages {
				rights, _ := unix.ParseUnixRights(&messages[i])
				*fds = append(*fds, rights...)
			}
		}
		b = b[n:]
	}
	return true
}

// next receives a message; ok is false when the client has hung up. Descriptors are closed with the test.
func (s *server) next() (m wire, ok bool) {
	head := make([]byte, codec.HeaderSize)
	if !s.read(head, &m.fds) {
		return m, false
	}
	h, err := codec.DecodeHeader(head)
	if err != nil {
		s.t.Errorf("fake server: header: %v", err)
		return m, false
	}
	m.Header = h
	m.payload = make([]byte, h.Size-codec.HeaderSize)
	ok = s.read(m.payload, &m.fds)
	fds := append([]int(nil), m.fds...)
	s.t.Cleanup(func() { reactor.CloseFDs(fds) })
	return m, ok
}

// want receives a message that must be of a command.
func (s *server) want(c codec.Command) wire {
	m, ok := s.next()
	if !ok || m.Command != c {
		s.t.Errorf("fake server: got %s (%v), want %s", m.Command, ok, c)
	}
	return m
}

func (s *server) raw(b []byte, fds ...int) {
	for len(b) > 0 {
		n, err := reactor.SendMsg(s.fd, fds, b)
		if err == unix.EAGAIN {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, 100)
			continue
		}
		if err != nil {
			return // the client may have hung up already, and that may be right
		}
		b, fds = b[n:], nil
	}
}

// reply answers m.
func (s *server) reply(m wire, payload []byte, fds ...int) {
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply, Size: uint32(codec.HeaderSize + len(payload))}
	s.raw(append(h.Append(nil), payload...), fds...)
}

func (s *server) refuse(m wire, errno unix.Errno) {
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply | codec.FlagError, Size: codec.HeaderSize, Errno: uint32(errno)}
	s.raw(h.Append(nil))
}

// ask sends a command of the server and returns the client's reply.
func (s *server) ask(c codec.Command, id uint16, payload []byte) wire {
	h := codec.Header{ID: id, Command: c, Size: uint32(codec.HeaderSize + len(payload))}
	s.raw(append(h.Append(nil), payload...))
	m := s.want(c)
	if !m.IsReply() || m.ID != id {
		s.t.Errorf("fake server: got %+v, want a reply with id %d", m.Header, id)
	}
	return m
}

var fakeCaps = codec.Capabilities{MaxMsgFDs: 8, MaxDataXferSize: 8192}

func (s *server) version() {
	m := s.want(codec.CmdVersion)
	s.reply(m, (&codec.VersionMsg{Minor: 1, Caps: fakeCaps}).Append(nil))
}

func (s *server) handshake() {
	s.version()
	m := s.want(codec.CmdGetInfo)
	s.reply(m, (&codec.DeviceInfo{ArgSz: 16, Flags: codec.DeviceFlagPCI | codec.DeviceFlagReset, NumRegions: 9, NumIRQs: 5}).Append(nil))
}

func (s *server) untilEOF() {
	for {
		if _, ok := s.next(); !ok {
			return
		}
	}
}

// region answers a region access with data that tells the offset: byte i is i.
func (s *server) access(m wire) {
	var a codec.RegionAccess
	if m.Command == codec.CmdRegionRead {
		if err := a.DecodeReadRequest(m.payload); err != nil {
			s.t.Error(err)
		}
		a.Data = make([]byte, a.Count)
		for i := range a.Data {
			a.Data[i] = byte(a.Offset + uint64(i))
		}
		s.reply(m, a.Append(nil))
		return
	}
	if err := a.DecodeWriteRequest(m.payload); err != nil {
		s.t.Error(err)
	}
	if !m.NoReply() {
		s.reply(m, a.AppendHead(nil))
	}
}

// serveAccesses answers region accesses until the client hangs up.
func (s *server) serveAccesses() {
	for {
		m, ok := s.next()
		if !ok {
			return
		}
		s.access(m)
	}
}
