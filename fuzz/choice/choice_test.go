package choice

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestBytesAreTheChoices(t *testing.T) {
	s := FromBytes([]byte{7, 2, 1, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9})
	if got := s.Uint8(); got != 7 {
		t.Errorf("Uint8 is %d", got)
	}
	if got := s.Uint16(); got != 0x102 {
		t.Errorf("Uint16 is %#x", got)
	}
	if got := s.Uint32(); got != 3 {
		t.Errorf("Uint32 is %d", got)
	}
	if got := s.Uint64(); got != 4 {
		t.Errorf("Uint64 is %d", got)
	}
	if got := s.Intn(5); got != 4 {
		t.Errorf("Intn is %d", got)
	}
	if s.More() {
		t.Error("there is more")
	}
}

func TestAfterTheInputAllIsZero(t *testing.T) {
	s := FromBytes([]byte{0xff})
	if got := s.Bytes(3); !bytes.Equal(got, []byte{0xff, 0, 0}) {
		t.Errorf("Bytes are %x", got)
	}
	if s.More() || s.Bool() || s.Odds(2) || s.Intn(100) != 0 || s.Edge(10) != 0 || Pick(s, "first", "second") != "first" {
		t.Error("a choice is not zero")
	}
}

func TestIntnTakesWhatItNeeds(t *testing.T) {
	for _, c := range []struct{ n, takes int }{{1, 0}, {2, 1}, {256, 1}, {257, 2}, {65536, 2}, {65537, 3}} {
		s := FromBytes(make([]byte, 8))
		s.Intn(c.n)
		if took := 8 - len(s.input); took != c.takes {
			t.Errorf("Intn(%d) takes %d bytes, want %d", c.n, took, c.takes)
		}
	}
}

func TestSeedIsAllThatMatters(t *testing.T) {
	draw := func(seed uint64) (n int, all []byte) {
		for s := FromSeed(seed, 5); s.More(); n++ {
			all = append(all, s.Bytes(8)...)
		}
		return n, all
	}
	n, first := draw(1)
	if n != 5 {
		t.Errorf("%d steps, want 5", n)
	}
	if _, again := draw(1); !bytes.Equal(first, again) {
		t.Error("the same seed has other choices")
	}
	if _, other := draw(2); bytes.Equal(first, other) {
		t.Error("another seed has the same choices")
	}
}

func TestEdgeFindsEdges(t *testing.T) {
	s, seen := FromSeed(1, 0), map[uint64]bool{}
	for range 20000 {
		seen[s.Edge(1000)] = true
	}
	for _, want := range []uint64{0, 1, 2, 999, 1000, 1001, 1 << 12, 1<<12 - 1, 1 << 63, ^uint64(0), 500, 123} {
		if !seen[want] {
			t.Errorf("%d never comes", want)
		}
	}
}

func TestMarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "marks")
	t.Setenv(MarksVariable, file)
	usual := marks
	marks = sync.OnceValue(openMarks)
	t.Cleanup(func() {
		marks().Close()
		marks = usual
	})
	for s := FromBytes([]byte{1, 2, 3}); s.More(); {
		s.Uint16()
	}
	for s := FromSeed(1, 2); s.More(); {
	}
	got, err := os.ReadFile(file)
	if want := "input 010203\n3 0\n3 2\n3 3\n"; err != nil || string(got) != want {
		t.Errorf("marks are %q, want %q; %v", got, want, err)
	}
}
