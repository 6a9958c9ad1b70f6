package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// unmapped answers a DMA_UNMAP and returns its address.
func (s *server) unmapped() uint64 {
	m := s.Want(codec.CmdDMAUnmap)
	var u codec.DMAUnmap
	if err := u.DecodeRequest(m.Payload); err != nil {
		s.t.Error(err)
	}
	s.Reply(m, u.Append(nil))
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
			got = append(got, s.Want(codec.CmdDMAMap))
		}
		for i, m := range got {
			var a codec.DMAMap
			if err := a.Decode(m.Payload); err != nil || a != want[i] {
				t.Errorf("map %d is %+v (%v)", i, a, err)
			}
			if fds := len(m.FDs); fds != 1 && i < 2 || fds != 0 && i == 2 {
				t.Errorf("map %d has %d descriptors", i, fds)
			}
			s.Reply(m, nil)
		}
		if a := s.unmapped(); a != 0x200000 {
			t.Errorf("unmap of %#x", a)
		}
	})
	ctx := testContext(t)
	readOnly := mem.At(0x200000-1<<20).Slice(1<<20, 1<<20)
	readOnly.Prot = ProtRead
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
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			s.Refuse(s.Want(codec.CmdDMAMap), unix.ENOSPC)
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			s.unmapped()
			s.Refuse(s.Want(codec.CmdDMAUnmap), unix.ENOENT)
			s.unmapped()
			s.Reply(s.Want(codec.CmdDMAMap), nil)
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
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			late := []wire{s.Want(codec.CmdDMAMap), s.Want(codec.CmdDMAMap)}
			cancel()
			unmap := s.Want(codec.CmdDMAUnmap)
			s.Reply(late[0], nil)
			s.Reply(late[1], nil)
			s.Reply(unmap, unmap.Payload)
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
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			s.Refuse(s.Want(codec.CmdDMAMap), unix.ENOMEM)
			s.Want(codec.CmdDMAUnmap)
			s.Close()
		})
		if err := d.MapDMA(testContext(t), maps[:2]...); !errors.Is(err, unix.ENOMEM) {
			t.Error(err)
		}
		ended(t, d, ErrDisconnected)
		if m := d.Mappings(); len(m) != 0 {
			t.Errorf("%d mappings are left for Reattach", len(m))
		}
	})
	t.Run("so does an undo that is not answered", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			s.Refuse(s.Want(codec.CmdDMAMap), unix.ENOMEM)
			s.Want(codec.CmdDMAUnmap)
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
			"bytes too short": {IOVA: 0x1000, Size: 4096, FD: -1, Local: make([]byte, 10)},
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
			s.Reply(s.Want(codec.CmdDMAMap), nil)
		}
		m := s.Want(codec.CmdDMAUnmap)
		var u codec.DMAUnmap
		if err := u.DecodeRequest(m.Payload); err != nil || u.Flags != codec.UnmapFlagAll {
			t.Errorf("%+v, %v", u, err)
		}
		s.Reply(m, m.Payload)
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
