package irq

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSet(t testing.TB, cfg Config) *Set {
	t.Helper()
	s := NewSet(cfg)
	t.Cleanup(s.Close)
	return s
}

// newEventfd makes the client's own descriptor, non-blocking.
func newEventfd(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// dup makes the descriptor that travels to the server.
func dup(t testing.TB, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return n
}

// counter reads and clears a non-blocking eventfd.
func counter(t testing.TB, fd int) uint64 {
	t.Helper()
	var b [8]byte
	_, err := unix.Read(fd, b[:])
	if err == unix.EAGAIN {
		return 0
	}
	must(t, err)
	return binary.NativeEndian.Uint64(b[:])
}

func putCounter(t testing.TB, fd int, v uint64) {
	t.Helper()
	_, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, v))
	must(t, err)
}

func setNonblock(t testing.TB, fd int, on bool) {
	t.Helper()
	must(t, unix.SetNonblock(fd, on))
}

// checkFDs fails the test if it leaves descriptors open. Call it first.
func checkFDs(t testing.TB) {
	t.Helper()
	before := openEventfds(t)
	t.Cleanup(func() {
		if after := openEventfds(t); after != before {
			t.Errorf("%d eventfds are open, %d were", after, before)
		}
	})
}

// openEventfds counts the eventfds of the process; the Go runtime keeps one itself.
func openEventfds(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(link, "[eventfd]") {
			n++
		}
	}
	return n
}

// waitSleeping waits until a thread of this process sleeps in a write to fd.
func waitSleeping(t *testing.T, fd int) {
	t.Helper()
	call := fmt.Sprintf("%d %#x ", unix.SYS_WRITE, fd)
	waitFor(t, func() bool {
		tasks, err := os.ReadDir("/proc/self/task")
		must(t, err)
		for _, task := range tasks {
			b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/syscall")
			if err == nil && strings.HasPrefix(string(b), call) {
				return true
			}
		}
		return false
	})
}
