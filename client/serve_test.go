package client

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func TestServerReadsAndWritesByMessage(t *testing.T) {
	mem := newMemory(t, 8192)
	for i := range mem.Bytes() {
		mem.Bytes()[i] = byte(i >> 8)
	}
	read := func(addr, count uint64) []byte { return (&codec.DMAAccess{Addr: addr, Count: count}).AppendHead(nil) }
	write := func(addr uint64, data string) []byte {
		return (&codec.DMAAccess{Addr: addr, Count: uint64(len(data)), Data: []byte(data)}).Append(nil)
	}
	for _, test := range []struct {
		name    string
		command codec.Command
		payload []byte
		errno   unix.Errno
		data    []byte
	}{
		{"read", codec.CmdDMARead, read(0x10100, 3), 0, []byte{1, 1, 1}},
		{"read up to the end", codec.CmdDMARead, read(0x11fff, 1), 0, []byte{31}},
		{"read of memory that also has a descriptor", codec.CmdDMARead, read(0x20200, 2), 0, []byte{2, 2}},
		{"write", codec.CmdDMAWrite, write(0x10000, "hello"), 0, nil},
		{"read below", codec.CmdDMARead, read(0xffff, 1), unix.ENOENT, nil},
		{"read above", codec.CmdDMARead, read(0x12000, 1), unix.ENOENT, nil},
		{"read behind everything", codec.CmdDMARead, read(1<<60, 1), unix.ENOENT, nil},
		{"read across the end", codec.CmdDMARead, read(0x11fff, 2), unix.EINVAL, nil},
		{"read of nothing", codec.CmdDMARead, read(0x10000, 0), unix.EINVAL, nil},
		{"read that wraps", codec.CmdDMARead, read(^uint64(0), 2), unix.EINVAL, nil},
		{"read of more than a message may carry", codec.CmdDMARead, read(0x10000, 1<<20+1), unix.EINVAL, nil},
		{"read of all addresses", codec.CmdDMARead, read(0, ^uint64(0)), unix.EINVAL, nil},
		{"request cut short", codec.CmdDMARead, make([]byte, 15), unix.EINVAL, nil},
		{"write below", codec.CmdDMAWrite, write(0xfffe, "xx"), unix.ENOENT, nil},
		{"write across the end", codec.CmdDMAWrite, write(0x11fff, "xx"), unix.EINVAL, nil},
		{"write to memory that is read-only", codec.CmdDMAWrite, write(0x20000, "xx"), unix.EACCES, nil},
		{"write with a count that lies", codec.CmdDMAWrite, write(0x10000, "xxxx")[:18], unix.EINVAL, nil},
		{"access to memory without local bytes", codec.CmdDMARead, read(0x30000, 1), unix.EINVAL, nil},
		{"command for servers", codec.CmdRegionRead, make([]byte, 16), unix.ENOTSUP, nil},
		{"unknown command", 4711, nil, unix.ENOTSUP, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			done := make(chan struct{})
			d := attach(t, func(s *server) {
				for range 3 {
					s.Reply(s.Want(codec.CmdDMAMap), nil)
				}
				// Once while the client is idle, once while it waits for a reply.
				for _, m := range []wire{{}, s.Want(codec.CmdRegionRead)} {
					got := s.Ask(test.command, 0xabcd, test.payload)
					if unix.Errno(got.Errno) != test.errno || got.IsError() != (test.errno != 0) {
						t.Errorf("answer %+v", got.Header)
					}
					if test.errno == 0 {
						var a, b codec.DMAAccess
						_ = a.DecodeReadRequest(test.payload)
						_ = b.DecodeReadRequest(got.Payload)
						if a.Addr != b.Addr || a.Count != b.Count || !bytes.Equal(got.Payload[16:], test.data) {
							t.Errorf("answer %x", got.Payload)
						}
					} else if len(got.Payload) != 0 {
						t.Errorf("error reply with a payload of %d bytes", len(got.Payload))
					}
					if m.Command != 0 {
						s.Access(m)
					}
				}
				close(done)
			})
			readOnly := mem.At(0x20000)
			readOnly.Prot = ProtRead
			foreign := Mapping{IOVA: 0x30000, Size: 4096, FD: mem.FD()}
			if err := d.MapDMA(testContext(t), mem.At(0x10000).ByMessage(), readOnly, foreign); err != nil {
				t.Fatal(err)
			}
			if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
				t.Error(err)
			}
			<-done
			if test.command == codec.CmdDMAWrite && test.errno == 0 && string(mem.Bytes()[:5]) != "hello" {
				t.Errorf("memory holds %q", mem.Bytes()[:5])
			}
		})
	}
}

func TestUnmappedMemoryIsNotServed(t *testing.T) {
	mem := newMemory(t, 8192)
	done := make(chan struct{})
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdDMAMap), nil)
		s.unmapped()
		s.Want(codec.CmdReset)
		m := s.Ask(codec.CmdDMARead, 1, (&codec.DMAAccess{Addr: 0x10000, Count: 1}).AppendHead(nil))
		if unix.Errno(m.Errno) != unix.ENOENT {
			t.Errorf("answer %+v", m.Header)
		}
		close(done)
	})
	ctx, cancel := context.WithCancel(testContext(t))
	if err := errors.Join(d.MapDMA(ctx, mem.At(0x10000).ByMessage()), d.UnmapDMA(ctx, 0x10000, 8192)); err != nil {
		t.Fatal(err)
	}
	go func() { <-done; cancel() }()
	if err := d.Reset(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestPostedDMAWriteIsNotAnswered(t *testing.T) {
	mem := newMemory(t, 4096)
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdDMAMap), nil)
		m := s.Want(codec.CmdRegionRead)
		h := codec.Header{Command: codec.CmdDMAWrite, Flags: codec.FlagNoReply, Size: 33}
		s.Send((&codec.DMAAccess{Addr: 0x10000, Count: 1, Data: []byte{42}}).Append(h.Append(nil)))
		h.Size = 16
		s.Send(h.Append(nil)) // wrong, and not answered either
		s.Access(m)
		s.ServeAccesses()
	})
	if err := d.MapDMA(testContext(t), mem.At(0x10000).ByMessage()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
			t.Error(err)
		}
	}
	if mem.Bytes()[0] != 42 {
		t.Error("nothing was written")
	}
}

func TestLargeAnswersGoOutInPieces(t *testing.T) {
	const size, reads = 1 << 20, 3
	mem := newMemory(t, size)
	for i := range mem.Bytes() {
		mem.Bytes()[i] = byte(i * 7)
	}
	done := make(chan struct{})
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdDMAMap), nil)
		h := codec.Header{ID: 1, Command: codec.CmdDMARead, Size: 32}
		ask := (&codec.DMAAccess{Addr: 0, Count: size}).AppendHead(h.Append(nil))
		for range reads {
			s.Send(ask)
		}
		for range reads {
			if m := s.Want(codec.CmdDMARead); !bytes.Equal(m.Payload[16:], mem.Bytes()) {
				t.Error("data differs")
			}
		}
		close(done)
	})
	if err := d.MapDMA(testContext(t), mem.At(0).ByMessage()); err != nil {
		t.Fatal(err)
	}
	<-done
}
