package client

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func newMemory(t *testing.T, size uint64) *Memory {
	t.Helper()
	m, err := NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// unmapped answers a DMA_UNMAP and returns its address.
func (s *server) unmapped() uint64 {
	m := s.want(codec.CmdDMAUnmap)
	var u codec.DMAUnmap
	if err := u.DecodeRequest(m.payload); err != nil {
		s.t.Error(err)
	}
	s.reply(m, u.Append(nil))
	return u.Addr
}

func TestMapDMA(t *testing.T) {
	mem := newMemory(t, 3<<20)
	want := []codec.DMAMap{
		{ArgSz: 32, Flags: 3, Addr: 0x10000000, Size: 3 << 20},
		{ArgSz: 32, Flags: 1, Offset: 1 << 20, Addr: 0x200000, Size: 1 << 20},
		{ArgSz: 32, Flags: 3, Addr: 0x1000, Size: 4096},
	}
	d := attach(t, func(s *server) {
		var got []wire
		for range want { // all before the first answer: they are pipelined
			got = append(got, s.want(codec.CmdDMAMap))
		}
		for i, m := range got {
			var a codec.DMAMap
			if err := a.Decode(m.payload); err != nil || a != want[i] {
				t.Errorf("map %d is %+v (%v)", i, a, err)
			}
			if fds := len(m.fds); fds != 1 && i < 2 || fds != 0 && i == 2 {
				t.Errorf("map %d has %d descriptors", i, fds)
			}
			s.reply(m, nil)
		}
		if a := s.unmapped(); a != 0x200000 {
			t.Errorf("unmap of %#x", a)
		}
	})
	ctx := testContext(t)
	readOnly := mem.At(0x200000-1<<20).Slice(1<<20, 1<<20)
	readOnly.Flags = codec.DMAFlagRead
	if err := d.MapDMA(ctx, mem.At(0x10000000), readOnly, mem.At(0x1000).Slice(0, 4096).ByMessage()); err != nil {
		t.Fatal(err)
	}
	if m, ok := d.MappingOf(mem); !ok || m.IOVA != 0x1000 {
		t.Errorf("memory is mapped at %#x (%v)", m.IOVA, ok)
	}
	for name, m := range map[string]Mapping{
		"equal":    mem.At(0x10000000),
		"begins":   mem.At(0x10000000 + 3<<20 - 4096),
		"ends":     mem.At(0x10000000 - 4096),
		"contains": mem.At(0x200000 - 1<<20),
	} {
		if err := d.MapDMA(ctx, m); !errors.Is(err, ErrOverlap) {
			t.Errorf("overlap (%s): %v", name, err)
		}
	}
	if err := d.UnmapDMA(ctx, 0x200000, 1<<20); err != nil {
		t.Error(err)
	}
}

func TestMapDMAIsAllOrNothing(t *testing.T) {
	mem := newMemory(t, 1<<20)
	maps := []Mapping{mem.At(0x1000000), mem.At(0x2000000), mem.At(0x3000000)}
	t.Run("an error undoes what succeeded", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.reply(s.want(codec.CmdDMAMap), nil)
			s.refuse(s.want(codec.CmdDMAMap), unix.ENOSPC)
			s.reply(s.want(codec.CmdDMAMap), nil)
			s.unmapped()
			s.refuse(s.want(codec.CmdDMAUnmap), unix.ENOENT)
			s.unmapped()
			s.reply(s.want(codec.CmdDMAMap), nil)
		})
		if err := d.MapDMA(testContext(t), maps...); !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
		if err := d.MapDMA(testContext(t), maps[1]); err != nil {
			t.Error("mapping again:", err)
		}
	})
	t.Run("cancelled half-way", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		d := attach(t, func(s *server) {
			s.reply(s.want(codec.CmdDMAMap), nil)
			late := []wire{s.want(codec.CmdDMAMap), s.want(codec.CmdDMAMap)}
			cancel()
			unmap := s.want(codec.CmdDMAUnmap)
			s.reply(late[0], nil)
			s.reply(late[1], nil)
			s.reply(unmap, unmap.payload)
			s.unmapped()
			s.unmapped()
		})
		if err := d.MapDMA(ctx, maps...); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if len(d.dma.maps) != 0 || d.Err() != nil {
			t.Errorf("%d mappings are left, %v", len(d.dma.maps), d.Err())
		}
	})
	t.Run("what cannot be undone ends the session", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.reply(s.want(codec.CmdDMAMap), nil)
			s.refuse(s.want(codec.CmdDMAMap), unix.ENOMEM)
			s.want(codec.CmdDMAUnmap)
			s.close()
		})
		if err := d.MapDMA(testContext(t), maps[:2]...); !errors.Is(err, unix.ENOMEM) {
			t.Error(err)
		}
		ended(t, d, ErrDisconnected)
	})
	t.Run("so does an undo that is not answered", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.reply(s.want(codec.CmdDMAMap), nil)
			s.refuse(s.want(codec.CmdDMAMap), unix.ENOMEM)
			s.want(codec.CmdDMAUnmap)
		})
		d.dma.undoTime = 20 * time.Millisecond
		if err := d.MapDMA(testContext(t), maps[:2]...); !errors.Is(err, unix.ENOMEM) {
			t.Error(err)
		}
		ended(t, d, ErrUndo)
	})
	t.Run("an invalid one sends nothing", func(t *testing.T) {
		d := attach(t, func(*server) {})
		for name, m := range map[string]Mapping{
			"no size":         {IOVA: 0x1000, FD: 1},
			"wraps":           {IOVA: ^uint64(0xfff), Size: 8192, FD: 1},
			"nothing behind":  {IOVA: 0x1000, Size: 4096, FD: -1},
			"bytes too short": {IOVA: 0x1000, Size: 4096, FD: -1, Bytes: make([]byte, 10)},
		} {
			if err := d.MapDMA(testContext(t), maps[0], m); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := d.MapDMA(testContext(t), maps[0], maps[1], maps[0]); !errors.Is(err, ErrOverlap) {
			t.Error(err)
		}
		if len(d.dma.maps) != 0 {
			t.Errorf("%d mappings are left", len(d.dma.maps))
		}
	})
}

func TestMapManyRegions(t *testing.T) {
	const regions = 1000
	mem := newMemory(t, 4096)
	d := attach(t, func(s *server) {
		for range regions {
			s.reply(s.want(codec.CmdDMAMap), nil)
		}
		m := s.want(codec.CmdDMAUnmap)
		var u codec.DMAUnmap
		if err := u.DecodeRequest(m.payload); err != nil || u.Flags != codec.UnmapFlagAll {
			t.Errorf("%+v, %v", u, err)
		}
		s.reply(m, m.payload)
	})
	maps := make([]Mapping, regions)
	for i := range maps {
		maps[i] = mem.At(uint64(regions-i) << 20)
	}
	if err := d.MapDMA(testContext(t), maps...); err != nil {
		t.Fatal(err)
	}
	if err := d.UnmapAllDMA(testContext(t)); err != nil {
		t.Error(err)
	}
	if mem.users != 0 {
		t.Errorf("the memory still has %d users", mem.users)
	}
}

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
					s.reply(s.want(codec.CmdDMAMap), nil)
				}
				// Once while the client is idle, once while it waits for a reply.
				for _, m := range []wire{{}, s.want(codec.CmdRegionRead)} {
					got := s.ask(test.command, 0xabcd, test.payload)
					if unix.Errno(got.Errno) != test.errno || got.IsError() != (test.errno != 0) {
						t.Errorf("answer %+v", got.Header)
					}
					if test.errno == 0 {
						var a, b codec.DMAAccess
						_ = a.DecodeReadRequest(test.payload)
						_ = b.DecodeReadRequest(got.payload)
						if a.Addr != b.Addr || a.Count != b.Count || !bytes.Equal(got.payload[16:], test.data) {
							t.Errorf("answer %x", got.payload)
						}
					} else if len(got.payload) != 0 {
						t.Errorf("error reply with a payload of %d bytes", len(got.payload))
					}
					if m.Command != 0 {
						s.access(m)
					}
				}
				close(done)
			})
			readOnly := mem.At(0x20000)
			readOnly.Flags = codec.DMAFlagRead
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
		s.reply(s.want(codec.CmdDMAMap), nil)
		s.unmapped()
		s.want(codec.CmdReset)
		m := s.ask(codec.CmdDMARead, 1, (&codec.DMAAccess{Addr: 0x10000, Count: 1}).AppendHead(nil))
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
		s.reply(s.want(codec.CmdDMAMap), nil)
		m := s.want(codec.CmdRegionRead)
		h := codec.Header{Command: codec.CmdDMAWrite, Flags: codec.FlagNoReply, Size: 33}
		s.raw((&codec.DMAAccess{Addr: 0x10000, Count: 1, Data: []byte{42}}).Append(h.Append(nil)))
		h.Size = 16
		s.raw(h.Append(nil)) // wrong, and not answered either
		s.access(m)
		s.serveAccesses()
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
		s.reply(s.want(codec.CmdDMAMap), nil)
		h := codec.Header{ID: 1, Command: codec.CmdDMARead, Size: 32}
		ask := (&codec.DMAAccess{Addr: 0, Count: size}).AppendHead(h.Append(nil))
		for range reads {
			s.raw(ask)
		}
		for range reads {
			if m := s.want(codec.CmdDMARead); !bytes.Equal(m.payload[16:], mem.Bytes()) {
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

func TestMemory(t *testing.T) {
	checkLeaks(t)
	m, err := NewMemory(5000)
	if err != nil {
		t.Fatal(err)
	}
	if m.Size() != 8192 || len(m.Bytes()) != 8192 {
		t.Errorf("size %d", m.Size())
	}
	if err := unix.Ftruncate(m.FD(), 4096); err != unix.EPERM {
		t.Errorf("sealed memory shrinks: %v", err)
	}
	if err := unix.Ftruncate(m.FD(), 1<<20); err != unix.EPERM {
		t.Errorf("sealed memory grows: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(m.FD()), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != unix.EPERM {
		t.Errorf("memory takes another seal: %v", err)
	}
	if at := m.At(0x1000); at.FD != m.FD() || at.IOVA != 0x1000 || at.Size != 8192 {
		t.Errorf("%+v", at)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if m.FD() != -1 {
		t.Error("closed memory has a descriptor")
	}
	if _, err := NewMemory(0); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	p, err := NewMemory(1<<20, WithPopulate())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.FD(), &st); err != nil || st.Blocks != 2048 {
		t.Errorf("populated memory has %d blocks (%v)", st.Blocks, err)
	}
	p.Close()
	if h, err := NewMemory(2<<20, WithHugepages()); err == nil {
		h.Close()
	} else if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("hugepages: %v", err)
	}
}

func TestClosedMemoryStaysUntilItIsUnmapped(t *testing.T) {
	done := make(chan struct{})
	d := attach(t, func(s *server) {
		s.reply(s.want(codec.CmdDMAMap), nil)
		s.want(codec.CmdReset)
		m := s.ask(codec.CmdDMARead, 1, (&codec.DMAAccess{Addr: 0x10000, Count: 1}).AppendHead(nil))
		if m.IsError() || m.payload[16] != 42 {
			t.Errorf("answer %+v %x", m.Header, m.payload)
		}
		close(done)
	})
	mem := newMemory(t, 4096)
	mem.Bytes()[0] = 42
	if err := d.MapDMA(testContext(t), mem.At(0x10000)); err != nil {
		t.Fatal(err)
	}
	mem.Close()
	ctx, cancel := context.WithCancel(testContext(t))
	go func() { <-done; cancel() }()
	_ = d.Reset(ctx)
	if err := d.MapDMA(testContext(t), mem.At(0x20000)); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
