package reactor

import (
	"testing"

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

// addFD registers fd from outside the loop and removes it when the test ends.
func addFD(tb testing.TB, r *Reactor, fd int, ev Events, h Handler) *FD {
	tb.Helper()
	var (
		f   *FD
		err error
	)
	if derr := r.Do(func() { f, err = r.Add(fd, ev, h) }); derr != nil || err != nil {
		tb.Fatal(derr, err)
	}
	tb.Cleanup(func() {
		if err := r.Do(func() { err = f.Remove() }); err != nil {
			tb.Error(err)
		}
	})
	return f
}
