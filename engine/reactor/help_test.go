package reactor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newReactor returns a reactor that is closed when the test ends.
func newReactor(tb testing.TB, cfg Config) *Reactor {
	tb.Helper()
	r, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// socketPair returns two connected non-blocking stream sockets that are closed when the test ends.
func socketPair(tb testing.TB) (int, int) {
	tb.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { CloseFDs(p[:]) })
	return p[0], p[1]
}

// on runs fn on the loop and waits for it.
func on(tb testing.TB, r *Reactor, fn func()) {
	tb.Helper()
	if err := r.Do(fn); err != nil {
		tb.Fatal(err)
	}
}

// addFD registers fd from outside the loop and removes it when the test ends.
func addFD(tb testing.TB, r *Reactor, fd int, ev Events, h Handler) *FD {
	tb.Helper()
	var (
		f   *FD
		err error
	)
	on(tb, r, func() { f, err = r.Add(fd, ev, h) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		on(tb, r, func() { err = f.Remove() })
		if err != nil {
			tb.Error(err)
		}
	})
	return f
}

// hold keeps the loop in a task until the function that it returns is called.
func hold(tb testing.TB, r *Reactor) (release func()) {
	tb.Helper()
	held, gate := make(chan struct{}), make(chan struct{})
	r.PostFunc(func() {
		close(held)
		<-gate
	})
	wait(tb, held, "the loop to be held")
	return func() { close(gate) }
}

func wait[T any](tb testing.TB, c <-chan T, what string) (v T) {
	tb.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		tb.Fatal("timed out waiting for " + what)
	}
	return v
}

// mustSend sends everything in p on fd.
func mustSend(tb testing.TB, fd int, p []byte, fds ...int) {
	tb.Helper()
	if n, err := SendMsg(fd, fds, p); n != len(p) || err != nil {
		tb.Fatalf("SendMsg = %d, %v", n, err)
	}
}

type handlerFunc func(Events)

func (f handlerFunc) HandleEvents(ev Events) { f(ev) }
