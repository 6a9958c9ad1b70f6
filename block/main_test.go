package block

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// result receives what becomes of one request.
type result chan error

func (c result) CompleteBlock(_ *Request, err error) { c <- err }

// do submits r and waits for its end.
func do(b Backend, r *Request) error {
	c := make(result, 1)
	r.Completer = c
	done, err := b.Submit(r)
	if !done {
		err = <-c
	}
	return err
}

func read(b Backend, off int64, bufs ...[]byte) error {
	return do(b, &Request{Op: Read, Offset: off, Length: total(bufs), Buffers: bufs})
}

func write(b Backend, off int64, bufs ...[]byte) error {
	return do(b, &Request{Op: Write, Offset: off, Length: total(bufs), Buffers: bufs})
}

func total(bufs [][]byte) (n int64) {
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newPath returns the path of a sparse file of size bytes.
func newPath(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	return path
}

// closing fails the test if b does not close.
func closing(t testing.TB, b Backend, err error) Backend {
	t.Helper()
	must(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

func newFile(t testing.TB, size int64) (*file, string) {
	t.Helper()
	return newFileWith(t, size, FileOptions{})
}

func newFileWith(t testing.TB, size int64, opt FileOptions) (*file, string) {
	t.Helper()
	path := newPath(t, size)
	b, err := File(path, opt)
	if opt.Engine == EngineURing && err != nil {
		t.Skip(err)
	}
	if opt.Direct && errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		t.Skip(err)
	}
	return closing(t, b, err).(*file), path
}

// engines are the ways in which a file can be opened.
func engines(t *testing.T, test func(t *testing.T, opt FileOptions)) {
	for name, opt := range map[string]FileOptions{
		"io_uring": {Engine: EngineURing}, "goroutines": {Engine: EngineThreads},
		"io_uring direct": {Engine: EngineURing, Direct: true}, "goroutines direct": {Engine: EngineThreads, Direct: true},
	} {
		t.Run(name, func(t *testing.T) { test(t, opt) })
	}
}

// detour has every request go through the engine, as if nothing could be had without waiting.
func (f *file) detour() {
	f.resident = false
	f.noInline[Read].Store(true)
	f.noInline[Write].Store(true)
	if f.ring != nil && f.writer != f.crew {
		f.writer.close()
		f.writer = f.crew
	}
}

// kinds makes one backend of each kind that keeps its data.
func kinds(t *testing.T, size int64, test func(t *testing.T, b Backend)) {
	t.Run("mem", func(t *testing.T) {
		b, err := Memory(size)
		test(t, closing(t, b, err))
	})
	t.Run("file", func(t *testing.T) {
		f, _ := newFile(t, size)
		test(t, f)
	})
	engines(t, func(t *testing.T, opt FileOptions) {
		f, _ := newFileWith(t, size, opt)
		f.detour()
		test(t, f)
	})
	t.Run("file in memory", func(t *testing.T) {
		f, _ := newFile(t, size)
		f.resident = true
		test(t, f)
	})
}

// truncated returns two pages of shared memory of which the second has gone,
// as a guest's is after it truncated its memory.
func truncated(t *testing.T) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	page := os.Getpagesize()
	must(t, unix.Ftruncate(fd, int64(2*page)))
	mem, err := unix.Mmap(fd, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, unix.Ftruncate(fd, int64(page)))
	must(t, unix.Close(fd))
	t.Cleanup(func() { must(t, unix.Munmap(mem)) })
	return mem
}

// descriptors counts this process' open descriptors on path.
func descriptors(t *testing.T, path string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, path) {
			n++
		}
	}
	return n
}

// collect runs the garbage collector until ok, or fails.
func collect(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		runtime.GC()
		if ok() {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("not so after 1,000 collections: %s", what)
}
