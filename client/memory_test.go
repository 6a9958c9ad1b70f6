package client

import (
	"errors"
	"math/rand/v2"
	"testing"
)

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
