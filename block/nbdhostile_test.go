package block

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a server may do wrong in its answers. Each costs the connection, and the request is
// done on the next one.
func TestNBDServerThatLies(t *testing.T) {
	const n = 4096
	data := make([]byte, n)
	header := func(flags, kind uint16, cookie uint64, n uint32) []byte {
		return pack(uint32(nbdChunkMagic), flags, kind, cookie, n)
	}
	simpleData := func(cookie uint64) []byte { return append(simpleReply(cookie, 0), data...) }
	for _, tt := range []struct {
		name   string
		simple bool // no structured replies
		answer func(q nbdQuery) []byte
	}{
		{"nothing", false, func(nbdQuery) []byte { return nil }},
		{"a wrong magic", false, func(q nbdQuery) []byte { return pack(uint32(0xdeadbeef), uint32(0), q.cookie) }},
		{"half a header", false, func(q nbdQuery) []byte { return header(nbdChunkDone, nbdChunkNone, q.cookie, 0)[:7] }},
		{"half a simple header", true, func(q nbdQuery) []byte { return simpleReply(q.cookie, 0)[:15] }},
		{"half the data", true, func(q nbdQuery) []byte { return append(simpleReply(q.cookie, 0), data[:n/2]...) }},
		{"another cookie", true, func(q nbdQuery) []byte { return simpleData(q.cookie + 1) }},
		{"a cookie that was used", true, func(q nbdQuery) []byte { return simpleData(q.cookie - 1<<16) }},
		{"a cookie of no slot", true, func(q nbdQuery) []byte { return simpleData(q.cookie | 0xffff) }},
		{"an answer too many", true, func(q nbdQuery) []byte {
			r := append(simpleReply(q.cookie, 5), simpleReply(q.cookie, 0)...)
			return append(r, r...)
		}},
		{"a chunk that was not asked for", true, func(q nbdQuery) []byte { return chunk(nbdChunkDone, nbdChunkNone, q.cookie) }},
		{"a simple answer to a read", false, func(q nbdQuery) []byte { return simpleData(q.cookie) }},
		{"a chunk of 4 GiB", false, func(q nbdQuery) []byte { return header(nbdChunkDone, nbdChunkOffsetData, q.cookie, 0xffffffff) }},
		{"data of no bytes", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off))
		}},
		{"too much data", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), data, []byte{1})
		}},
		{"data in front", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off)-1, data)
		}},
		{"data behind", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off)+1, data)
		}},
		{"data far away", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, ^uint64(0), data)
		}},
		{"data twice", false, func(q nbdQuery) []byte {
			return append(chunk(0, nbdChunkOffsetData, q.cookie, uint64(q.off), data), chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), data)...)
		}},
		{"not enough data", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), data[1:])
		}},
		{"no data", false, func(q nbdQuery) []byte { return chunk(nbdChunkDone, nbdChunkNone, q.cookie) }},
		{"nothing, and more to come", false, func(q nbdQuery) []byte { return chunk(0, nbdChunkNone, q.cookie) }},
		{"a huge hole", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetHole, q.cookie, uint64(q.off), uint32(0xffffffff))
		}},
		{"a hole of a wrong size", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkOffsetHole, q.cookie, uint64(q.off), uint64(n))
		}},
		{"block status", false, func(q nbdQuery) []byte { return chunk(nbdChunkDone, 5, q.cookie, uint32(1), uint32(n), uint32(0)) }},
		{"an unknown chunk", false, func(q nbdQuery) []byte { return chunk(nbdChunkDone, 77, q.cookie) }},
		{"a short error", false, func(q nbdQuery) []byte { return chunk(nbdChunkDone, nbdChunkError|1, q.cookie, uint32(5)) }},
		{"a huge error", false, func(q nbdQuery) []byte { return header(nbdChunkDone, nbdChunkError|1, q.cookie, 1<<30) }},
		{"no error", false, func(q nbdQuery) []byte {
			return chunk(nbdChunkDone, nbdChunkError|1, q.cookie, uint32(0), uint16(0))
		}},
		{"shutting down", false, func(q nbdQuery) []byte { return simpleReply(q.cookie, uint32(syscall.ESHUTDOWN)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveNBD(t, 1<<20, func(s *nbdServer) {
				s.structured = !tt.simple
				s.answer = func(c *nbdServed, q nbdQuery) bool {
					if c.nr > 0 {
						return false
					}
					_, _ = c.Write(tt.answer(q))
					if tt.name == "nothing" || strings.HasPrefix(tt.name, "half") {
						_ = c.Conn.(*net.UnixConn).CloseWrite()
					}
					return true
				}
			})
			copy(s.data[n:], "true")
			b := openNBD(t, s, NBDOptions{Timeout: time.Hour}) // it is not by silence that a lie is noticed
			got := make([]byte, n+4)
			if err := read(b, n, got[:n]); tt.name == "an answer too many" {
				err = read(b, n, got[:n]) // the first has failed, as it was told to
				must(t, err)
			} else if err != nil {
				t.Fatal(err)
			}
			if string(got[:4]) != "true" || string(got[n:]) != "\x00\x00\x00\x00" {
				t.Errorf("read %q, and %q behind the buffer", got[:4], got[n:])
			}
		})
	}
}

// A server that answers a write before it has the data: the request's memory must not go back
// to its owner while the kernel still reads it.
func TestNBDAnswerBeforeTheData(t *testing.T) {
	s := serveNBD(t, 32<<20, func(s *nbdServer) {
		s.answer = func(c *nbdServed, q nbdQuery) bool {
			if c.nr > 0 {
				return false
			}
			_, _ = c.Write(simpleReply(q.cookie, 0))
			_, _ = c.Read(make([]byte, 1)) // and waits for the end without reading
			for {
				if _, err := c.Write(simpleReply(q.cookie, 0)); err != nil {
					return true
				}
			}
		}
	})
	b := openNBD(t, s, NBDOptions{})
	data := make([]byte, 16<<20)
	data[0], data[len(data)-1] = 1, 2
	must(t, write(b, 0, data))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data[0] != 1 || s.data[len(data)-1] != 2 || s.accepted < 2 {
		t.Errorf("not written, after %d connections", s.accepted)
	}
}

// Handshakes that cannot end well.
func TestNBDRefusals(t *testing.T) {
	hello := nbdHelloFixed
	refuse := func(kind uint32, text string) func(c net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write(hello)
			opt, _, _ := readOption(c, true)
			_, _ = c.Write(optionReply(opt, nbdRepErrUnsup))
			opt, _, _ = readOption(c, false)
			_, _ = c.Write(optionReply(opt, kind, text))
		}
	}
	answer := func(replies func(opt uint32) []byte) func(c net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write(hello)
			opt, _, _ := readOption(c, true)
			_, _ = c.Write(optionReply(opt, nbdRepAck))
			opt, _, _ = readOption(c, false)
			_, _ = c.Write(replies(opt))
		}
	}
	export := func(size uint64) func(opt uint32) []byte {
		return func(opt uint32) []byte {
			return append(optionReply(opt, nbdRepInfo, uint16(nbdInfoExport), size, uint16(allNBDFlags)), optionReply(opt, nbdRepAck)...)
		}
	}
	blocks := func(least, most uint32) func(opt uint32) []byte {
		return func(opt uint32) []byte {
			return append(optionReply(opt, nbdRepInfo, uint16(nbdInfoBlockSize), least, least, most), export(1<<20)(opt)...)
		}
	}
	for _, tt := range []struct {
		name  string
		greet func(c net.Conn)
		is    error
		says  string
	}{
		{"closed at once", func(net.Conn) {}, syscall.ECONNRESET, "closed the connection"},
		{"silent", func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }, os.ErrDeadlineExceeded, "handshake"},
		{"no NBD", func(c net.Conn) { _, _ = c.Write(make([]byte, 18)) }, syscall.EPROTO, "no NBD server"},
		{"half a greeting", func(c net.Conn) { _, _ = c.Write(hello[:12]) }, syscall.ECONNRESET, "closed the connection"},
		{"oldstyle", func(c net.Conn) { _, _ = c.Write(pack(uint64(nbdMagic), uint64(nbdOldMagic), uint16(0))) }, syscall.EPROTO, "oldstyle"},
		{"other options", func(c net.Conn) { _, _ = c.Write(pack(uint64(nbdMagic), uint64(1), uint16(0))) }, syscall.EPROTO, "no NBD server"},
		{"TLS", refuse(nbdRepErrTLS, "use TLS"), syscall.EACCES, `wants TLS`},
		{"unknown export", refuse(nbdRepErrUnknown, "never heard of"), syscall.ENOENT, `no export "disk" ("never heard of")`},
		{"policy", refuse(nbdRepErrPolicy, ""), syscall.EACCES, "by its policy"},
		{"shutdown", refuse(nbdRepErrShutdown, ""), syscall.ESHUTDOWN, "shutting down"},
		{"block sizes", refuse(nbdRepErrBlockSizes, ""), syscall.EINVAL, "block sizes"},
		{"other error", refuse(nbdRepErr+99, ""), syscall.EINVAL, "0x80000063"},
		{"unsupported, then gone", refuse(nbdRepErrUnsup, ""), syscall.ECONNRESET, `may not have an export "disk"`},
		{"no magic in a reply", answer(func(uint32) []byte { return make([]byte, 20) }), syscall.EPROTO, "not one to option 7"},
		{"huge reply", answer(func(opt uint32) []byte { return pack(uint64(nbdReplyMagic), opt, uint32(nbdRepInfo), uint32(1<<31)) }), syscall.EPROTO, "bytes to option 7"},
		{"done at once", answer(func(opt uint32) []byte { return optionReply(opt, nbdRepAck) }), syscall.EPROTO, "nothing of the export"},
		{"no end", answer(func(opt uint32) (b []byte) {
			for range 100 {
				b = append(b, optionReply(opt, nbdRepInfo, uint16(9))...)
			}
			return b
		}), syscall.EPROTO, "more than 64 replies"},
		{"short information", answer(func(opt uint32) []byte { return optionReply(opt, nbdRepInfo, uint16(0), uint32(1)) }), syscall.EPROTO, "information 0 of 6 bytes"},
		{"no information", answer(func(opt uint32) []byte { return optionReply(opt, nbdRepInfo) }), syscall.EPROTO, "of 0 bytes"},
		{"odd size", answer(export(1000)), ErrSpec, "1000 bytes, is not a multiple of 512"},
		{"no size", answer(export(0)), ErrSpec, "0 bytes"},
		{"huge size", answer(export(1 << 63)), syscall.EPROTO, "an export of 9223372036854775808 bytes"},
		{"odd blocks", answer(blocks(3, 512)), syscall.EPROTO, "minimum block size of 3"},
		{"no blocks", answer(blocks(0, 512)), syscall.EPROTO, "minimum block size of 0"},
		{"large blocks", answer(blocks(1<<31, 1<<31)), syscall.EPROTO, "minimum block size"},
		{"blocks of no size", answer(blocks(512, 0)), syscall.EPROTO, "maximum block size of 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveNBD(t, 1<<20, func(s *nbdServer) {
				s.greet = func(_ int, c net.Conn) bool { tt.greet(c); return true }
			})
			var opt NBDOptions
			if tt.name == "silent" {
				opt.hello = 50 * time.Millisecond
			}
			b, err := NBD(s.uri, opt)
			if err == nil {
				b.Close()
				t.Fatal("opened")
			}
			var open *OpenError
			if !errors.As(err, &open) || !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v; want %v, and %q", err, tt.is, tt.says)
			}
		})
	}
}

func TestNBDAddresses(t *testing.T) {
	for _, tt := range []struct {
		uri  string
		want nbdAddress
		says string // of the refusal
	}{
		{"nbd://host", nbdAddress{"tcp", "host:10809", ""}, ""},
		{"nbd://host/", nbdAddress{"tcp", "host:10809", ""}, ""},
		{"nbd+tcp://host:1/a/b", nbdAddress{"tcp", "host:1", "a/b"}, ""},
		{"nbd://[::1]:2/my%20disk", nbdAddress{"tcp", "[::1]:2", "my disk"}, ""},
		{"nbd+unix:///?socket=/run/nbd.sock", nbdAddress{"unix", "/run/nbd.sock", ""}, ""},
		{"nbd+unix:///disk?socket=nbd%2fsock&connections=2&timeout=5s", nbdAddress{"unix", "nbd/sock", "disk"}, ""},
		{"", nbdAddress{}, `unknown scheme ""`},
		{"nbd:", nbdAddress{}, "no host"},
		{"nbd://", nbdAddress{}, "no host"},
		{"nbd://:1", nbdAddress{}, "no host"},
		{"nbd:host:1", nbdAddress{}, "write nbd://HOST"},
		{"nbd://host:port", nbdAddress{}, "not a URI"},
		{"nbd://user@host", nbdAddress{}, "not a URI"},
		{"nbd://host#x", nbdAddress{}, "not a URI"},
		{"nbd://host?socket=/x", nbdAddress{}, `unknown parameter "socket"`},
		{"nbd://host?connections=0", nbdAddress{}, "connections"},
		{"nbd://host?connections=17", nbdAddress{}, "connections"},
		{"nbd://host?timeout=1", nbdAddress{}, "timeout"},
		{"nbd://host?timeout=1ms", nbdAddress{}, "timeout"},
		{"nbd+unix://disk?socket=/x", nbdAddress{}, "three slashes"},
		{"nbd+unix:///disk", nbdAddress{}, "no socket"},
		{"nbds://host", nbdAddress{}, "TLS"},
		{"http://host", nbdAddress{}, `unknown scheme "http"`},
		{"nbd://host/" + strings.Repeat("x", 4097), nbdAddress{}, "4096 bytes"},
	} {
		var opt NBDOptions
		got, err := parseNBD(tt.uri, &opt)
		if tt.says != "" {
			if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v, want %q", tt.uri, err, tt.says)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", tt.uri, got, err)
		}
		if strings.Contains(tt.uri, "timeout=5s") && (opt.Connections != 2 || opt.Timeout != 5*time.Second) {
			t.Errorf("%s: %+v", tt.uri, opt)
		}
	}
	for _, spec := range []string{"nbd://127.0.0.1:1/x", "nbd:nbd://127.0.0.1:1/x", "nbd+unix:///x?socket=/nowhere"} {
		var open *OpenError
		if _, err := Open(spec); !errors.As(err, &open) || !strings.Contains(err.Error(), "is the server running there?") {
			t.Errorf("%s: %v", spec, err)
		}
	}
}
