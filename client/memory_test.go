package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
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

func TestMemory(t *testing.T) {
	holdings.CheckLeaks(t)
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
}

// TestHugepages needs free hugepages to show all: sysctl vm.nr_hugepages=8.
func TestHugepages(t *testing.T) {
	b, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if err != nil {
		t.Skip("no hugepages of 2 MiB:", err)
	}
	free, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	holdings.CheckLeaks(t)
	if free > 0 {
		m, err := NewMemory(1, WithHugepages(), WithPopulate())
		if err != nil {
			t.Fatal(err)
		}
		if m.Size() != 2<<20 {
			t.Errorf("size %d", m.Size())
		}
		m.Bytes()[m.Size()-1] = 1
		var fs unix.Statfs_t
		if err := unix.Fstatfs(m.FD(), &fs); err != nil || fs.Bsize != 2<<20 {
			t.Errorf("pages of %d bytes (%v)", fs.Bsize, err)
		}
		if err := unix.Ftruncate(m.FD(), 0); err != unix.EPERM {
			t.Error("sealed memory shrinks:", err)
		}
		m.Close()
	}
	_, err = NewMemory((free+1)<<21, WithHugepages(), WithPopulate())
	if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "vm.nr_hugepages") {
		t.Errorf("%d hugepages of %d: %v", free+1, free, err)
	}
}

func TestClosedMemoryStaysUntilItIsUnmapped(t *testing.T) {
	done := make(chan struct{})
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdDMAMap), nil)
		s.Want(codec.CmdReset)
		m := s.Ask(codec.CmdDMARead, 1, (&codec.DMAAccess{Addr: 0x10000, Count: 1}).AppendHead(nil))
		if m.IsError() || m.Payload[16] != 42 {
			t.Errorf("answer %+v %x", m.Header, m.Payload)
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

func TestAlloc(t *testing.T) {
	m := newMemory(t, 64<<10)
	a, err := m.Alloc(100, 64)
	if err != nil || a.Offset != 0 || len(a.Bytes) != 100 {
		t.Fatal(a.Offset, err)
	}
	b, err := m.Alloc(4096, 0)
	if err != nil || b.Offset != 4096 {
		t.Fatal(b.Offset, err)
	}
	c, err := m.Alloc(50, 8) // into the gap
	if err != nil || c.Offset != 104 {
		t.Fatal(c.Offset, err)
	}
	for _, bad := range [][2]uint64{{0, 0}, {1, 3}} {
		if _, err := m.Alloc(bad[0], bad[1]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, size := range []uint64{64 << 10, 1 << 40, ^uint64(0)} {
		if _, err := m.Alloc(size, 0); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	a.Bytes[0] = 1
	m.Free(a)
	if again, err := m.Alloc(100, 64); err != nil || again.Offset != 0 || again.Bytes[0] != 0 {
		t.Error(again.Offset, err)
	}
	m.Free(Chunk{})
	m.Free(b)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("freeing twice goes unnoticed")
			}
		}()
		m.Free(b)
	}()
	m.Close()
	if _, err := m.Alloc(1, 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestAllocNeverOverlapsAndMergesAgain(t *testing.T) {
	m := newMemory(t, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	var chunks []Chunk
	for range 5000 {
		if len(chunks) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(chunks))
			for _, b := range chunks[i].Bytes {
				if b != byte(chunks[i].Offset>>3) {
					t.Fatal("a chunk was written by another's owner")
				}
			}
			m.Free(chunks[i])
			chunks[i] = chunks[len(chunks)-1]
			chunks = chunks[:len(chunks)-1]
			continue
		}
		align := uint64(8) << r.IntN(10)
		c, err := m.Alloc(1+r.Uint64N(20000), align)
		if errors.Is(err, ErrNoSpace) {
			continue
		}
		if err != nil || c.Offset%align != 0 {
			t.Fatal(c.Offset, err)
		}
		for i := range c.Bytes {
			c.Bytes[i] = byte(c.Offset >> 3)
		}
		chunks = append(chunks, c)
	}
	for _, c := range chunks {
		m.Free(c)
	}
	if len(m.free) != 1 || m.free[0] != (span{0, 1 << 20}) {
		t.Errorf("free space is in pieces: %v", m.free)
	}
}
