package block

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
)

// nbdServer is an NBD server that does what a test tells it to.
type nbdServer struct {
	t          *testing.T
	uri        string
	listener   net.Listener
	tcp        bool
	flags      uint16
	oldGo      bool // knows no NBD_OPT_GO
	structured bool
	min, max   uint32 // block sizes; 0: not told
	// greet replaces the handshake of the n-th connection if it returns true.
	greet func(n int, c net.Conn) bool
	// answer replaces the answer to a command if it returns true.
	answer func(c *nbdServed, q nbdQuery) bool

	wait sync.WaitGroup

	mu       sync.Mutex
	data     []byte
	conns    map[net.Conn]bool
	accepted int
	seen     []nbdQuery
}

// nbdQuery is a command as the server sees it.
type nbdQuery struct {
	flags, cmd uint16
	cookie     uint64
	off        int64
	n          int64
}

// nbdServed is a connection of the server.
type nbdServed struct {
	net.Conn
	s  *nbdServer
	nr int // from 0
}

const allNBDFlags = nbdHasFlags | nbdSendFlush | nbdSendFUA | nbdSendTrim | nbdSendWriteZeroes | nbdSendFastZero

// serveNBD starts a server that is changed by setup before it is reachable.
func serveNBD(t *testing.T, size int, setup func(s *nbdServer)) *nbdServer {
	t.Helper()
	s := &nbdServer{t: t, flags: allNBDFlags, structured: true, data: make([]byte, size), conns: map[net.Conn]bool{}}
	if setup != nil {
		setup(s)
	}
	network, address := "unix", filepath.Join(t.TempDir(), "nbd.sock")
	if s.tcp {
		network, address = "tcp", "127.0.0.1:0"
	}
	l, err := net.Listen(network, address)
	must(t, err)
	s.listener, s.uri = l, "nbd+unix:///disk?socket="+url.QueryEscape(address)
	if s.tcp {
		s.uri = "nbd://" + l.Addr().String() + "/disk"
	}
	s.wait.Go(s.accept)
	t.Cleanup(s.stop)
	return s
}

func (s *nbdServer) stop() {
	_ = s.listener.Close()
	s.cut()
	s.wait.Wait()
}

// cut closes all connections.
func (s *nbdServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

func (s *nbdServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		nr := s.accepted
		s.accepted++
		s.conns[c] = true
		s.mu.Unlock()
		s.wait.Go(func() {
			defer func() {
				_ = c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			}()
			if s.greet != nil && s.greet(nr, c) || !s.handshake(c) {
				return
			}
			s.serve(&nbdServed{c, s, nr})
		})
	}
}

func pack(values ...any) (b []byte) {
	for _, v := range values {
		switch v := v.(type) {
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case []byte:
			b = append(b, v...)
		case string:
			b = append(b, v...)
		}
	}
	return b
}

// optionReply is a reply to an option.
func optionReply(opt, kind uint32, data ...any) []byte {
	d := pack(data...)
	return pack(uint64(nbdReplyMagic), opt, kind, uint32(len(d)), d)
}

// readOption reads the client's flags, if they are still to come, and an option.
func readOption(c net.Conn, first bool) (opt uint32, data []byte, err error) {
	skip := 0
	if first {
		skip = 4
	}
	head := make([]byte, skip+16)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, err
	}
	opt = binary.BigEndian.Uint32(head[skip+8:])
	data = make([]byte, binary.BigEndian.Uint32(head[skip+12:]))
	_, err = io.ReadFull(c, data)
	return opt, data, err
}

var nbdHelloFixed = pack(uint64(nbdMagic), uint64(nbdOptionMagic), uint16(nbdFixedNewstyle|nbdNoZeroes))

func (s *nbdServer) handshake(c net.Conn) bool {
	_, _ = c.Write(nbdHelloFixed)
	for first := true; ; first = false {
		opt, _, err := readOption(c, first)
		if err != nil {
			return false
		}
		export := pack(uint64(len(s.data)), s.flags)
		switch {
		case opt == nbdOptStructuredReply && s.structured:
			_, err = c.Write(optionReply(opt, nbdRepAck))
		case opt == nbdOptGo && !s.oldGo:
			b := optionReply(opt, nbdRepInfo, uint16(nbdInfoExport), export)
			if s.max != 0 {
				b = append(b, optionReply(opt, nbdRepInfo, uint16(nbdInfoBlockSize), s.min, uint32(4096), s.max)...)
			}
			_, err = c.Write(append(b, optionReply(opt, nbdRepAck)...))
			return err == nil
		case opt == nbdOptExportName:
			_, err = c.Write(export)
			return err == nil
		default:
			_, err = c.Write(optionReply(opt, nbdRepErrUnsup))
		}
		if err != nil {
			return false
		}
	}
}

func (s *nbdServer) serve(c *nbdServed) {
	head := make([]byte, nbdRequestSize)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		q := nbdQuery{binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:]), binary.BigEndian.Uint64(head[8:]),
			int64(binary.BigEndian.Uint64(head[16:])), int64(binary.BigEndian.Uint32(head[24:]))}
		s.mu.Lock()
		s.seen = append(s.seen, q)
		s.mu.Unlock()
		if q.cmd == nbdCmdDisconnect {
			return
		}
		if s.answer != nil && s.answer(c, q) {
			continue
		}
		if !c.do(q) {
			return
		}
	}
}

// do executes a command and answers it.
func (c *nbdServed) do(q nbdQuery) bool {
	s := c.s
	var payload []byte
	switch q.cmd {
	case nbdCmdWrite:
		b := make([]byte, q.n)
		if _, err := io.ReadFull(c, b); err != nil {
			return false
		}
		s.mu.Lock()
		copy(s.data[q.off:], b)
		s.mu.Unlock()
	case nbdCmdWriteZeroes, nbdCmdTrim:
		s.mu.Lock()
		clear(s.data[q.off : q.off+q.n])
		s.mu.Unlock()
	case nbdCmdRead:
		s.mu.Lock()
		payload = append(payload, s.data[q.off:q.off+q.n]...)
		s.mu.Unlock()
	}
	b := simpleReply(q.cookie, 0)
	if q.cmd == nbdCmdRead {
		b = append(b, payload...)
		if s.structured {
			b = chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), payload)
		}
	}
	_, err := c.Write(b)
	return err == nil
}

func simpleReply(cookie uint64, code uint32) []byte {
	return pack(uint32(nbdSimpleMagic), code, cookie)
}

func chunk(flags, kind uint16, cookie uint64, data ...any) []byte {
	d := pack(data...)
	return pack(uint32(nbdChunkMagic), flags, kind, cookie, uint32(len(d)), d)
}

// commands are what the server has seen of one kind.
func (s *nbdServer) commands(cmd uint16) (found []nbdQuery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.seen {
		if q.cmd == cmd {
			found = append(found, q)
		}
	}
	return found
}
