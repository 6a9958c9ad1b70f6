package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func openNBD(t *testing.T, s *nbdServer, opt NBDOptions) *nbd {
	t.Helper()
	b, err := NBD(s.uri, opt)
	return closing(t, b, err).(*nbd)
}

func TestNBDAgainstModel(t *testing.T) {
	const size = 2 << 20
	for _, tt := range []struct {
		name  string
		setup func(s *nbdServer)
	}{
		{"structured", nil},
		{"tcp", func(s *nbdServer) { s.tcp, s.flags = true, s.flags|nbdCanMultiConn }},
		{"simple", func(s *nbdServer) { s.structured = false }},
		{"no options", func(s *nbdServer) { s.oldGo = true }},
		{"several connections", func(s *nbdServer) { s.flags |= nbdCanMultiConn }},
		{"small payloads", func(s *nbdServer) { s.min, s.max = 512, 8192 }},
		{"no zeroes, no FUA", func(s *nbdServer) { s.flags = nbdHasFlags | nbdSendFlush }},
		{"read and write only", func(s *nbdServer) { s.flags = 0 }},
		{"connections end in the middle", func(s *nbdServer) {
			s.flags |= nbdCanMultiConn
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(1, 2))
			s.answer = func(c *nbdServed, q nbdQuery) bool {
				mu.Lock()
				defer mu.Unlock()
				if rng.IntN(12) != 0 {
					return false
				}
				if q.cmd == nbdCmdRead {
					_, _ = c.Write(chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), make([]byte, q.n))[:28+rng.Int64N(q.n)])
				}
				_ = c.Close()
				return true
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveNBD(t, size, tt.setup)
			b := openNBD(t, s, NBDOptions{})
			var wait sync.WaitGroup
			for i := range int64(4) {
				wait.Go(func() {
					m := model{b: b, base: i * size / 4, want: make([]byte, size/4), rng: rand.New(rand.NewPCG(uint64(i), 3))}
					if err := m.run(60); err != nil {
						t.Errorf("submitter %d: %v", i, err)
					}
				})
			}
			wait.Wait()
		})
	}
}

func TestNBDRequestRules(t *testing.T) {
	s := serveNBD(t, 1<<20, func(s *nbdServer) { s.flags = nbdHasFlags | nbdReadOnly })
	b := openNBD(t, s, NBDOptions{})
	if b.Size() != 1<<20 || !b.Info().ReadOnly || b.Info().VolatileCache || b.Info().CanDiscard {
		t.Errorf("size %d, %+v", b.Size(), b.Info())
	}
	buf := make([]byte, 512)
	for _, tt := range []struct {
		r    Request
		want error
	}{
		{Request{Op: Write, Length: 512, Buffers: [][]byte{buf}}, ErrReadOnly},
		{Request{Op: WriteZeroes, Length: 512}, ErrReadOnly},
		{Request{Op: Read, Offset: 1 << 20, Length: 512, Buffers: [][]byte{buf}}, ErrRange},
		{Request{Op: Read, Length: 512}, ErrRequest},
		{Request{Op: Flush}, nil},
		{Request{Op: Read}, nil},
	} {
		if err := do(b, &tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%v: %v, want %v", tt.r.Op, err, tt.want)
		}
	}
	must(t, b.Close())
	if err := read(b, 0, buf); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
	must(t, s.listener.Close())
	s.wait.Wait()
	if n := len(s.commands(nbdCmdDisconnect)); n != 1 {
		t.Errorf("%d goodbyes, want 1", n)
	}
}

func TestNBDCommands(t *testing.T) {
	buf := [][]byte{make([]byte, 1024)}
	for _, tt := range []struct {
		name  string
		flags uint16
		r     Request
		want  []nbdQuery // without cookies
	}{
		{"write", allNBDFlags, Request{Op: Write, Offset: 512, Length: 1024, Buffers: buf}, []nbdQuery{{cmd: nbdCmdWrite, off: 512, n: 1024}}},
		{"FUA", allNBDFlags, Request{Op: Write, Length: 1024, FUA: true, Buffers: buf}, []nbdQuery{{cmd: nbdCmdWrite, flags: nbdFlagFUA, n: 1024}}},
		{"FUA by a flush", nbdHasFlags | nbdSendFlush, Request{Op: Write, Length: 1024, FUA: true, Buffers: buf},
			[]nbdQuery{{cmd: nbdCmdWrite, n: 1024}, {cmd: nbdCmdFlush}}},
		{"flush", allNBDFlags, Request{Op: Flush}, []nbdQuery{{cmd: nbdCmdFlush}}},
		{"flush without cache", nbdHasFlags, Request{Op: Flush}, nil},
		{"zeroes stay allocated", allNBDFlags, Request{Op: WriteZeroes, Length: 512}, []nbdQuery{{cmd: nbdCmdWriteZeroes, flags: nbdFlagNoHole, n: 512}}},
		{"zeroes with FUA", allNBDFlags, Request{Op: WriteZeroes, Length: 512, FUA: true, Deallocate: true},
			[]nbdQuery{{cmd: nbdCmdWriteZeroes, flags: nbdFlagFUA, n: 512}}},
		{"zeroes as data", nbdHasFlags, Request{Op: WriteZeroes, Length: 2 << 20},
			[]nbdQuery{{cmd: nbdCmdWrite, n: 1 << 20}, {cmd: nbdCmdWrite, off: 1 << 20, n: 1 << 20}}},
		{"discard", allNBDFlags, Request{Op: Discard, Length: 4096}, []nbdQuery{{cmd: nbdCmdWriteZeroes, flags: nbdFlagFastZero, n: 4096}}},
		{"trim", nbdHasFlags | nbdSendTrim, Request{Op: Discard, Length: 4096}, []nbdQuery{{cmd: nbdCmdTrim, n: 4096}}},
		{"discard without a command", nbdHasFlags, Request{Op: Discard, Length: 4096}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveNBD(t, 4<<20, func(s *nbdServer) { s.flags = tt.flags })
			must(t, do(openNBD(t, s, NBDOptions{}), &tt.r))
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.seen) != len(tt.want) {
				t.Fatalf("the server saw %+v", s.seen)
			}
			for i, q := range s.seen {
				if q.cookie = 0; q != tt.want[i] {
					t.Errorf("command %d is %+v, want %+v", i, q, tt.want[i])
				}
			}
		})
	}
}

func TestNBDErrorsOfTheServer(t *testing.T) {
	for _, tt := range []struct {
		code uint32
		op   Op
		want error
	}{
		{1, Write, syscall.EPERM},
		{5, Read, syscall.EIO},
		{28, Write, syscall.ENOSPC},
		{14, Read, syscall.EIO}, // EFAULT is no error of NBD
		{999, Flush, syscall.EIO},
		{95, Discard, nil},
		{5, Discard, syscall.EIO},
	} {
		for _, structured := range []bool{false, true} {
			s := serveNBD(t, 1<<20, func(s *nbdServer) {
				s.structured = structured
				s.answer = func(c *nbdServed, q nbdQuery) bool {
					if q.cmd == nbdCmdWrite {
						_, _ = c.Read(make([]byte, q.n))
					}
					reply := simpleReply(q.cookie, tt.code)
					if structured {
						reply = chunk(nbdChunkDone, nbdChunkError|1, q.cookie, tt.code, uint16(3), "why")
					}
					_, _ = c.Write(reply)
					return true
				}
			})
			r := &Request{Op: tt.op, Length: 512}
			if tt.op <= Write {
				r.Buffers = [][]byte{make([]byte, 512)}
			}
			err := do(openNBD(t, s, NBDOptions{}), r)
			if !errors.Is(err, tt.want) {
				t.Errorf("%v with error %d: %v, want %v", tt.op, tt.code, err, tt.want)
			}
		}
	}
}

func TestNBDChunksOfARead(t *testing.T) {
	s := serveNBD(t, 1<<20, func(s *nbdServer) {
		s.answer = func(c *nbdServed, q nbdQuery) bool {
			at := uint64(q.off)
			_, _ = c.Write(chunk(0, nbdChunkOffsetData, q.cookie, at+1024, bytes.Repeat([]byte{2}, 512)))
			_, _ = c.Write(chunk(0, nbdChunkOffsetHole, q.cookie, at+512, uint32(512)))
			_, _ = c.Write(chunk(0, nbdChunkOffsetData, q.cookie, at, bytes.Repeat([]byte{1}, 512)))
			_, _ = c.Write(chunk(nbdChunkDone, nbdChunkNone, q.cookie))
			return true
		}
	})
	b := openNBD(t, s, NBDOptions{})
	got := bytes.Repeat([]byte{9}, 1536)
	must(t, read(b, 4096, got[:100], got[100:700], got[700:]))
	want := append(bytes.Repeat([]byte{1}, 512), make([]byte, 512)...)
	want = append(want, bytes.Repeat([]byte{2}, 512)...)
	if !bytes.Equal(got, want) {
		t.Error("the chunks are not where they belong")
	}
}

// A guest that gives its memory back while the request is in flight costs nobody anything.
func TestNBDMemoryThatHasGone(t *testing.T) {
	for _, structured := range []bool{false, true} {
		s := serveNBD(t, 1<<20, func(s *nbdServer) { s.structured = structured })
		b := openNBD(t, s, NBDOptions{Timeout: time.Hour})
		mem := truncated(t)
		for range 3 {
			if err := read(b, 0, mem); err != ErrMemory {
				t.Errorf("read: %v, want ErrMemory", err)
			}
			if err := write(b, 0, mem); err != ErrMemory {
				t.Errorf("write: %v, want ErrMemory", err)
			}
			if err := write(b, 0, mem[len(mem)/2:]); err != ErrMemory {
				t.Errorf("write: %v, want ErrMemory", err)
			}
			must(t, write(b, 0, []byte("here")))
		}
		// Of this one the server has heard the beginning, and must not wait for the rest.
		if err := write(b, 0, make([]byte, 1<<19), mem); err != ErrMemory {
			t.Errorf("a long write: %v, want ErrMemory", err)
		}
		must(t, write(b, 0, []byte("here")))
		s.mu.Lock()
		if s.accepted != 2 {
			t.Errorf("%d connections", s.accepted)
		}
		s.mu.Unlock()
	}
	s := serveNBD(t, 1<<20, func(s *nbdServer) {
		s.answer = func(c *nbdServed, q nbdQuery) bool {
			_, _ = c.Write(chunk(nbdChunkDone, nbdChunkOffsetHole, q.cookie, uint64(q.off), uint32(q.n)))
			return true
		}
	})
	if err := read(openNBD(t, s, NBDOptions{}), 0, truncated(t)); err != ErrMemory {
		t.Errorf("a hole: %v, want ErrMemory", err)
	}
}

func TestNBDSendsAgain(t *testing.T) {
	s := serveNBD(t, 1<<20, func(s *nbdServer) {
		s.answer = func(c *nbdServed, _ nbdQuery) bool {
			if c.nr < 3 {
				_ = c.Close()
			}
			return c.nr < 3
		}
	})
	b := openNBD(t, s, NBDOptions{})
	must(t, write(b, 512, []byte("again")))
	got := make([]byte, 5)
	must(t, read(b, 512, got))
	if string(got) != "again" || s.accepted != 4 {
		t.Errorf("read %q over %d connections", got, s.accepted)
	}
}

func TestNBDTimeout(t *testing.T) {
	const timeout = 160 * time.Millisecond
	silent := func(*nbdServed, nbdQuery) bool { return true }
	for _, tt := range []struct {
		name  string
		setup func(s *nbdServer)
		says  string
		cut   bool
	}{
		{"silent", func(s *nbdServer) { s.answer = silent }, "no answer from nbd+unix:", false},
		{"gone", func(s *nbdServer) { s.answer = silent; s.greet = func(n int, c net.Conn) bool { return n > 0 } }, "closed the connection during the handshake", true},
		{"another size", func(s *nbdServer) {
			s.answer = silent
			s.greet = func(n int, _ net.Conn) bool { s.data = s.data[:512*(4-min(n, 2))]; return false }
		}, "had 2048 bytes and now has", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveNBD(t, 1<<20, tt.setup)
			b := openNBD(t, s, NBDOptions{Timeout: timeout})
			c := make(result, 8)
			for range cap(c) {
				_, err := b.Submit(&Request{Op: Read, Length: 512, Buffers: [][]byte{make([]byte, 512)}, Completer: c})
				must(t, err)
			}
			if tt.cut {
				s.cut()
			}
			for range cap(c) {
				err := <-c
				if !errors.Is(err, syscall.ETIMEDOUT) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, want ETIMEDOUT with %q", err, tt.says)
				}
			}
		})
	}
}

// A server that hangs on one connection and serves on the next.
func TestNBDSilenceEndsAConnection(t *testing.T) {
	s := serveNBD(t, 1<<20, func(s *nbdServer) {
		s.answer = func(c *nbdServed, _ nbdQuery) bool { return c.nr == 0 }
	})
	b := openNBD(t, s, NBDOptions{Timeout: 2 * time.Second})
	must(t, read(b, 0, make([]byte, 512)))
	if s.accepted != 2 {
		t.Errorf("%d connections", s.accepted)
	}
}

func TestNBDCloseWaits(t *testing.T) {
	release := make(chan struct{})
	s := serveNBD(t, 1<<20, func(s *nbdServer) {
		s.answer = func(*nbdServed, nbdQuery) bool { <-release; return false }
	})
	b := openNBD(t, s, NBDOptions{})
	c := make(result, 1)
	_, err := b.Submit(&Request{Op: Read, Length: 512, Buffers: [][]byte{make([]byte, 512)}, Completer: c})
	must(t, err)
	closed := make(chan error)
	go func() { closed <- b.Close() }()
	for begun := false; !begun; runtime.Gosched() {
		b.mu.Lock()
		begun = b.closed
		b.mu.Unlock()
	}
	if _, err := b.Submit(&Request{Op: Flush, Completer: c}); err != ErrClosed {
		t.Errorf("while closing: %v, want ErrClosed", err)
	}
	select {
	case <-closed:
		t.Error("closed while a request is in flight")
	default:
	}
	close(release)
	must(t, <-closed)
	must(t, <-c)
}

func TestNBDAllocatesNothing(t *testing.T) {
	s := serveNBD(t, 1<<20, func(s *nbdServer) { s.greet = answerWithoutGarbage })
	b := openNBD(t, s, NBDOptions{})
	bufs := [][]byte{make([]byte, 512), make([]byte, 3584)}
	c := make(result, 1)
	for _, op := range []Op{Read, Write, Flush, WriteZeroes} {
		r := Request{Op: op, Length: 4096, Completer: c}
		if op <= Write {
			r.Buffers = bufs
		}
		n := testing.AllocsPerRun(200, func() {
			if _, err := b.Submit(&r); err != nil {
				t.Error(err)
			}
			if err := <-c; err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("%v allocates %v times", op, n)
		}
	}
}

// answerWithoutGarbage is a server that allocates nothing per command.
func answerWithoutGarbage(_ int, c net.Conn) bool {
	s := &nbdServer{flags: allNBDFlags, structured: true, data: make([]byte, 1<<20)}
	if !s.handshake(c) {
		return true
	}
	var head [nbdRequestSize]byte
	var data [4096]byte
	full := append(chunk(nbdChunkDone, nbdChunkOffsetData, 0, uint64(0)), data[:]...)
	binary.BigEndian.PutUint32(full[16:], 8+uint32(len(data)))
	short := simpleReply(0, 0)
	for {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return true
		}
		answer := short
		switch binary.BigEndian.Uint16(head[6:]) {
		case nbdCmdRead:
			answer = full
		case nbdCmdWrite:
			_, _ = io.ReadFull(c, data[:])
		}
		copy(answer[8:16], head[8:16])
		_, _ = c.Write(answer)
	}
}
