package block

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// One server at a time uses a file that several have open.
func TestFileIsUsedByWhoClaimsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(opt FileOptions) Claimer {
		t.Helper()
		b, err := File(path, opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b.(Claimer)
	}
	write := func(b Backend) error {
		return do(b, &Request{Op: Write, Length: 512, Buffers: [][]byte{make([]byte, 512)}})
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	first := open(FileOptions{})
	second := open(FileOptions{Unclaimed: true})
	must(write(first))
	must(first.Claim()) // it is
	for _, op := range []Op{Read, Write, Flush, WriteZeroes, Discard} {
		r := &Request{Op: op}
		if op != Flush {
			r.Length = 512
		}
		if op <= Write {
			r.Buffers = [][]byte{make([]byte, 512)}
		}
		if err := do(second, r); !errors.Is(err, ErrUnclaimed) {
			t.Errorf("%v: got %v, want ErrUnclaimed", op, err)
		}
	}
	var refused *OpenError
	begin := time.Now()
	if err := second.Claim(); !errors.Is(err, ErrInUse) || !errors.As(err, &refused) {
		t.Errorf("claimed twice: %v, want an OpenError with ErrInUse", err)
	}
	if took := time.Since(begin); took > lockPatience/2 {
		t.Errorf("Claim has waited for %v", took)
	}

	must(first.Yield())
	must(first.Yield())
	must(second.Claim())
	must(write(second))
	if err := write(first); !errors.Is(err, ErrUnclaimed) {
		t.Errorf("after Yield: got %v, want ErrUnclaimed", err)
	}
	if err := first.Claim(); !errors.Is(err, ErrInUse) {
		t.Errorf("claimed back: %v, want ErrInUse", err)
	}
	must(second.Close())
	must(first.Claim())
	must(write(first))
}

// A controller that is enabled does not wait until a disk has another size.
func TestClaimDoesNotWaitForAChangeOfTheSize(t *testing.T) {
	p := newPool(t, "dir:"+t.TempDir()+":16M")
	b, err := p.Create("disk", 1<<20)
	must(t, err)
	c := b.(*file)
	p.mu.Lock() // has the change wait
	changed, claimed := make(chan error), make(chan error, 1)
	go func() { changed <- c.Resize(2 << 20) }()
	for c.claim.mu.TryLock() {
		c.claim.mu.Unlock()
		runtime.Gosched()
	}
	go func() { claimed <- c.Claim() }()
	select {
	case err := <-claimed:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
	p.mu.Unlock()
	must(t, <-changed)
	must(t, c.Close())
	if err := c.Claim(); err != ErrClosed {
		t.Errorf("closed: %v, want ErrClosed", err)
	}
}

// The file of a server that was killed is free a little later.
func TestOpenWaitsForTheLock(t *testing.T) {
	path := newPath(t, 1<<20)
	first, err := File(path, FileOptions{})
	must(t, err)
	time.AfterFunc(20*time.Millisecond, func() { _ = first.Close() })
	second, err := File(path, FileOptions{})
	must(t, err)
	must(t, second.Close())
	must(t, first.Close())
}

func TestOpenUnclaimed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Open("file:" + path); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v, want ErrInUse", err)
	}
	second, err := OpenWith("file:"+path, OpenOptions{Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	filtered, err := OpenWith("error:off,stats,file:"+path, OpenOptions{Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer filtered.Close()
	if err := filtered.(Claimer).Claim(); !errors.Is(err, ErrInUse) {
		t.Errorf("claimed through filters: %v, want ErrInUse", err)
	}
	if err := first.(Claimer).Yield(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{filtered.(Claimer).Claim, filtered.(Claimer).Yield} {
		if err := step(); err != nil {
			t.Error(err)
		}
	}
	memory, err := OpenWith("mem:1M", OpenOptions{Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if _, ok := memory.(Claimer); ok {
		t.Error("memory is nobody else's")
	}
}
