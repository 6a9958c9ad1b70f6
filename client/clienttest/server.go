package clienttest

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// patience ends a script whose client is silent; nothing waits for it otherwise.
const patience = 10 * time.Second

// maxFDs is how many descriptors a script takes with one segment of the stream.
const maxFDs = 64

// Server is the server's end of a session. Its methods are for one goroutine, the script.
type Server struct {
	// Caps and Info are what Version and Handshake tell; the client may be told anything.
	Caps codec.Capabilities
	Info codec.DeviceInfo

	t  testing.TB
	fd int

	mu  sync.Mutex
	fds []int // that came; closed with the test
}

// Message is a message of the client. Its descriptors are closed at the end of the test.
type Message struct {
	codec.Header
	Payload []byte
	FDs     []int
}

// New starts a server that follows the script, and returns the client's end of its socket, for client.AttachFD. The script runs
// in a goroutine of its own, for which the end of the test waits; the socket is closed when it returns.
func New(t testing.TB, script func(*Server)) (clientFD int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := On(t, pair[1])
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.Close()
		script(s)
	}()
	t.Cleanup(func() { <-done })
	return pair[0]
}

// On makes a server of a connected unix stream socket, which then belongs to it.
func On(t testing.TB, fd int) *Server {
	t.Helper()
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Caps: codec.Capabilities{MaxMsgFDs: 8, MaxDataXferSize: 8192},
		Info: codec.DeviceInfo{ArgSz: codec.DeviceInfoSize, Flags: codec.DeviceFlagPCI | codec.DeviceFlagReset,
			NumRegions: codec.NumRegions, NumIRQs: codec.NumIRQIndexes},
		t: t, fd: fd,
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		reactor.CloseFDs(s.fds)
	})
	return s
}

// Close hangs up. Closing again does nothing.
func (s *Server) Close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// FD is the socket, for what the other methods do not cover; -1 after Close.
func (s *Server) FD() int { return s.fd }

// Closed says whether the server has hung up.
func (s *Server) Closed() bool { return s.fd < 0 }

// read fills b; false at the end of the stream.
func (s *Server) read(b []byte, fds *[]int) bool {
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	for len(b) > 0 {
		n, noob, _, _, err := unix.Recvmsg(s.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			if err != nil && err != unix.ECONNRESET {
				s.t.Errorf("clienttest: receive: %v", err)
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

// Next receives a message; ok is false when the client has hung up.
func (s *Server) Next() (m Message, ok bool) {
	defer func() {
		s.mu.Lock()
		s.fds = append(s.fds, m.FDs...)
		s.mu.Unlock()
	}()
	head := make([]byte, codec.HeaderSize)
	if !s.read(head, &m.FDs) {
		return m, false
	}
	h, err := codec.DecodeHeader(head)
	if err != nil {
		s.t.Errorf("clienttest: header: %v", err)
		return m, false
	}
	m.Header = h
	m.Payload = make([]byte, h.Size-codec.HeaderSize)
	return m, s.read(m.Payload, &m.FDs)
}

// Want receives a message that must be of a command.
func (s *Server) Want(c codec.Command) Message {
	m, ok := s.Next()
	if !ok || m.Command != c {
		s.t.Errorf("clienttest: got %s (%v), want %s", m.Command, ok, c)
	}
	return m
}

// UntilEOF receives until the client hangs up.
func (s *Server) UntilEOF() {
	for {
		if _, ok := s.Next(); !ok {
			return
		}
	}
}

// Send sends bytes as they are, with descriptors, which stay the caller's. That the client has hung up is no error.
func (s *Server) Send(b []byte, fds ...int) {
	for len(b) > 0 {
		n, err := reactor.SendMsg(s.fd, fds, b)
		if err == unix.EAGAIN {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, 100)
			continue
		}
		if err != nil {
			return
		}
		b, fds = b[n:], nil
	}
}

// Reply answers m.
func (s *Server) Reply(m Message, payload []byte, fds ...int) {
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply, Size: uint32(codec.HeaderSize + len(payload))}
	s.Send(append(h.Append(nil), payload...), fds...)
}

// Refuse answers m with an error.
func (s *Server) Refuse(m Message, errno unix.Errno) {
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply | codec.FlagError, Size: codec.HeaderSize, Errno: uint32(errno)}
	s.Send(h.Append(nil))
}

// Ask sends a command of the server (DMA_READ, DMA_WRITE) and returns the client's reply.
func (s *Server) Ask(c codec.Command, id uint16, payload []byte) Message {
	h := codec.Header{ID: id, Command: c, Size: uint32(codec.HeaderSize + len(payload))}
	s.Send(append(h.Append(nil), payload...))
	m := s.Want(c)
	if !m.IsReply() || m.ID != id {
		s.t.Errorf("clienttest: got %+v, want a reply with id %d", m.Header, id)
	}
	return m
}

// Version answers VERSION with Caps.
func (s *Server) Version() {
	s.Reply(s.Want(codec.CmdVersion), (&codec.VersionMsg{Minor: 1, Caps: s.Caps}).Append(nil))
}

// Handshake answers what a client asks while it attaches: VERSION with Caps, GET_INFO with Info.
func (s *Server) Handshake() {
	s.Version()
	s.Reply(s.Want(codec.CmdGetInfo), s.Info.Append(nil))
}

// Access answers a REGION_READ or REGION_WRITE. What is read tells its offset: byte i of a region is i.
func (s *Server) Access(m Message) {
	var a codec.RegionAccess
	if m.Command == codec.CmdRegionRead {
		if err := a.DecodeReadRequest(m.Payload); err != nil {
			s.t.Error(err)
		}
		a.Data = make([]byte, a.Count)
		for i := range a.Data {
			a.Data[i] = byte(a.Offset + uint64(i))
		}
		s.Reply(m, a.Append(nil))
		return
	}
	if err := a.DecodeWriteRequest(m.Payload); err != nil {
		s.t.Error(err)
	}
	if !m.NoReply() {
		s.Reply(m, a.AppendHead(nil))
	}
}

// ServeAccesses answers region accesses until the client hangs up.
func (s *Server) ServeAccesses() {
	for {
		m, ok := s.Next()
		if !ok {
			return
		}
		s.Access(m)
	}
}
