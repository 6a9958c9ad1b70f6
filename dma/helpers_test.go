package dma

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

const (
	page = 4096
	rw   = ProtRead | ProtWrite
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr checks an error and the errno it carries.
func wantErr(t testing.TB, err, want error, errno syscall.Errno) {
	t.Helper()
	var got syscall.Errno
	if !errors.Is(err, want) || !errors.As(err, &got) || got != errno {
		t.Errorf("got %v (errno %d), want %v with errno %d", err, got, want, errno)
	}
}

// newFile makes guest memory: a memfd that the test keeps.
func newFile(t testing.TB, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate(fileName(t), unix.MFD_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Ftruncate(fd, size))
	return fd
}

func fileName(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r == ' ' || r == '/' {
			return '_'
		}
		return r
	}, t.Name())
	return name[:min(len(name), 200)]
}

// dup makes the descriptor that travels to the server.
func dup(t testing.TB, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return n
}

// newTable makes a table and checks at the end that closing it leaves nothing.
func newTable(t testing.TB, cfg Config) *Table {
	t.Helper()
	tab := NewTable(cfg)
	t.Cleanup(func() {
		closed := make(chan struct{})
		tab.Close(func() { close(closed) })
		// Large files take a goroutine; anything else is released when Close returns, or never.
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Error("table is not closed in 20 s")
		}
		if s := tab.Stats(); s != (Stats{}) {
			t.Errorf("table was closed and still holds %+v", s)
		}
	})
	return tab
}

func newReader(t testing.TB, tab *Table) *Reader {
	t.Helper()
	r := tab.NewReader()
	t.Cleanup(r.Close)
	return r
}

// mapsOf counts the lines of /proc/self/maps that belong to the test's memfds.
func mapsOf(t testing.TB) (n int) {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	must(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.Contains(s.Text(), "/memfd:"+fileName(t)) {
			n++
		}
	}
	return n
}

// checkFDs fails the test if it leaves descriptors open. Call it first.
func checkFDs(t testing.TB) {
	t.Helper()
	before := holdings.Descriptors(t)
	t.Cleanup(func() {
		if after := holdings.Descriptors(t); after != before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
}

func itoa(n int) string { return strconv.Itoa(n) }

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func ranges(regions []Region) string {
	var b strings.Builder
	for _, r := range regions {
		fmt.Fprintf(&b, "%#x+%#x ", r.IOVA, r.Size)
	}
	return strings.TrimSpace(b.String())
}
