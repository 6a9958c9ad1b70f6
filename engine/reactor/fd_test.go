package reactor

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

func TestAddRefuses(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, _ := socketPair(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := handlerFunc(func(Events) {})
	addFD(t, r, server, Readable, h)
	for _, c := range []struct {
		rule string
		fd   int
		ev   Events
		h    Handler
		want syscall.Errno
	}{
		{"a negative descriptor", -1, Readable, h, unix.EINVAL},
		{"unknown events", server, 4, h, unix.EINVAL},
		{"no handler", server, Readable, nil, unix.EINVAL},
		{"a descriptor registered already", server, Readable, h, unix.EEXIST},
		{"a regular file", int(file.Fd()), Readable, h, unix.EPERM},
		{"a closed descriptor", 9999, Readable, h, unix.EBADF},
		{"a number that no descriptor has", 1 << 30, Readable, h, unix.EBADF},
	} {
		var err error
		on(t, r, func() { _, err = r.Add(c.fd, c.ev, c.h) })
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.rule, err, c.want)
		}
	}
}

// recorder counts events by kind and parks its registration with each, so that every event is counted once.
type recorder struct {
	f    *FD
	seen []Events
}

func (h *recorder) HandleEvents(ev Events) {
	h.seen = append(h.seen, ev)
	_ = h.f.Modify(0)
}

// turns lets the loop go round: when it returns, whatever was ready at the call has been handed out. A descriptor is
// signalled again and again, each time after its last event was handled. The first event may belong to a batch that
// was fetched before the call, and the second may precede others in its batch; with the third, that batch is over.
func turns(tb testing.TB, r *Reactor) {
	tb.Helper()
	e, err := NewEventfd()
	if err != nil {
		tb.Fatal(err)
	}
	handled := make(chan struct{}, 1)
	var f *FD
	on(tb, r, func() {
		f, err = r.Add(e.FD(), Readable, handlerFunc(func(Events) {
			if e.Drain() != 0 {
				handled <- struct{}{}
			}
		}))
	})
	if err != nil {
		tb.Fatal(err)
	}
	for range 3 {
		e.Signal()
		wait(tb, handled, "a turn of the loop")
	}
	on(tb, r, func() { err = f.Remove() })
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.Close(); err != nil {
		tb.Fatal(err)
	}
}

func TestModifyWatchesExactlyWhatItSays(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	for _, from := range []Events{0, Readable, Writable, Readable | Writable} {
		for _, to := range []Events{0, Readable, Writable, Readable | Writable} {
			for _, ready := range []Events{Writable, Readable | Writable} {
				server, client := socketPair(t)
				if ready&Readable != 0 {
					mustSend(t, client, []byte("x"))
				}
				h := &recorder{}
				var err error
				on(t, r, func() {
					if h.f, err = r.Add(server, from, h); err == nil {
						err = h.f.Modify(to)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				turns(t, r)
				var seen []Events
				on(t, r, func() {
					seen = h.seen
					err = h.f.Remove()
				})
				want := to & ready
				if err != nil || (want == 0) != (len(seen) == 0) || len(seen) > 0 && seen[0] != want {
					t.Errorf("from %d to %d with %d ready: saw %v, want %d; Remove: %v", from, to, ready, seen, want, err)
				}
			}
		}
	}
}

func TestModifyRefuses(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, _ := socketPair(t)
	on(t, r, func() {
		f, err := r.Add(server, Readable, handlerFunc(func(Events) {}))
		if err != nil {
			t.Error(err)
			return
		}
		if err := f.Modify(8); !errors.Is(err, unix.EINVAL) {
			t.Errorf("unknown events: %v", err)
		}
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
		if err := f.Remove(); err != nil {
			t.Errorf("second Remove: %v", err)
		}
		if err := f.Modify(Readable); !errors.Is(err, ErrClosed) {
			t.Errorf("after Remove: %v", err)
		}
	})
}

// A descriptor closed before Remove is a bug of the caller, and one that is told.
func TestRemoveAfterCloseIsAnError(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	e, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	f := addFD(t, r, e.FD(), Readable, handlerFunc(func(Events) {}))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	on(t, r, func() {
		if err := f.Remove(); !errors.Is(err, unix.EBADF) {
			t.Errorf("Remove: %v", err)
		}
	})
}

func TestHangUpComesAsReadableAndWritable(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	for _, watched := range []Events{Readable, Writable, Readable | Writable} {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		h := &recorder{}
		CloseFDs(p[1:])
		on(t, r, func() { h.f, err = r.Add(p[0], watched, h) })
		if err != nil {
			t.Fatal(err)
		}
		turns(t, r)
		on(t, r, func() {
			if len(h.seen) != 1 || h.seen[0] != Readable|Writable {
				t.Errorf("watched %d: saw %v", watched, h.seen)
			}
			_ = h.f.Remove()
		})
		CloseFDs(p[:1])
	}
}

// Two descriptors are ready in one batch, and the handler that is called first removes the other: that one must not
// be called, although the kernel has reported it.
func TestNoEventAfterRemoveWithinABatch(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	for range 20 {
		a, a2 := socketPair(t)
		b, b2 := socketPair(t)
		ha, hb := &remover{}, &remover{}
		release := hold(t, r)
		var err, err2 error
		r.PostFunc(func() {
			ha.mine, err = r.Add(a, Readable, ha)
			hb.mine, err2 = r.Add(b, Readable, hb)
			ha.other, hb.other = hb.mine, ha.mine
		})
		mustSend(t, a2, []byte("x"))
		mustSend(t, b2, []byte("x"))
		release()
		turns(t, r)
		on(t, r, func() {
			if err != nil || err2 != nil {
				t.Error(err, err2)
			}
			if ha.calls+hb.calls != 1 {
				t.Errorf("%d and %d calls, want one in all", ha.calls, hb.calls)
			}
		})
	}
	on(t, r, func() {
		if r.Stats().Stale == 0 {
			t.Error("no late event came: the test shows nothing")
		}
	})
}

// remover removes the other registration, then its own.
type remover struct {
	mine, other *FD
	calls       int
}

func (h *remover) HandleEvents(Events) {
	h.calls++
	_ = h.other.Remove()
	_ = h.mine.Remove()
}

// As above, but the number of the removed descriptor is taken by a new one at once: the late event may reach the new
// handler, which finds nothing to read, and never the old one.
func TestReusedNumberReachesOnlyTheNewHandler(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	spurious := 0
	for range 20 {
		a, a2 := socketPair(t)
		b, b2 := socketPair(t)
		fresh, freshPeer := socketPair(t)
		hb := &reader{fd: b}
		hNew := &reader{fd: b}
		var errs [5]error
		ha := handlerFunc(func(Events) {})
		var fa, fb, fNew *FD
		replaced := false
		ha = func(Events) {
			if replaced {
				return
			}
			replaced = true
			errs[0] = fa.Remove()
			errs[1] = fb.Remove()
			errs[2] = unix.Dup3(fresh, b, unix.O_CLOEXEC) // closes b and takes its number
			fNew, errs[3] = r.Add(b, Readable, hNew)
		}
		release := hold(t, r)
		r.PostFunc(func() {
			// The order of registration does not say which comes first in the batch; readiness does.
			fa, errs[0] = r.Add(a, Readable, ha)
			fb, errs[1] = r.Add(b, Readable, hb)
		})
		mustSend(t, a2, []byte("a"))
		mustSend(t, b2, []byte("b"))
		release()
		turns(t, r)
		callsBefore := 0
		on(t, r, func() {
			if !replaced {
				t.Error("the first handler was not called")
			}
			callsBefore = hb.calls
			spurious += hNew.calls
			if len(hNew.got) != 0 {
				t.Errorf("the new handler read %q", hNew.got)
			}
		})
		mustSend(t, freshPeer, []byte("fresh"))
		turns(t, r)
		on(t, r, func() {
			if string(hNew.got) != "fresh" || hb.calls != callsBefore {
				t.Errorf("new handler read %q, old one called %d times more", hNew.got, hb.calls-callsBefore)
			}
			errs[4] = fNew.Remove()
		})
		for i, err := range errs {
			if err != nil {
				t.Errorf("step %d: %v", i, err)
			}
		}
	}
	if spurious == 0 {
		t.Error("no late event came: the test shows nothing")
	}
}

// reader reads once at each event.
type reader struct {
	fd    int
	calls int
	got   []byte
}

func (h *reader) HandleEvents(Events) {
	h.calls++
	var b [64]byte
	if n, _, err := RecvMsg(h.fd, nil, b[:]); err == nil {
		h.got = append(h.got, b[:n]...)
	}
}

// Registrations come and go under load while every byte sent is still read, and in order.
func TestAddModifyRemoveUnderLoad(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	const sockets, rounds = 16, 200
	done := make(chan struct{}, sockets)
	for range sockets {
		server, client := socketPair(t)
		h := &churner{r: r, fd: server, want: rounds, done: done}
		on(t, r, func() { h.add() })
		go func() {
			for i := range rounds {
				for {
					_, err := SendMsg(client, nil, []byte{byte(i)})
					if err == nil {
						break
					}
					if err != unix.EAGAIN {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	for range sockets {
		wait(t, done, "a socket to be read")
	}
}

// churner reads one byte at each event and then changes its registration in one way or another.
type churner struct {
	r    *Reactor
	fd   int
	f    *FD
	n    int
	want int
	done chan struct{}
}

func (h *churner) add() {
	var err error
	if h.f, err = h.r.Add(h.fd, Readable, h); err != nil {
		panic(err)
	}
}

func (h *churner) HandleEvents(Events) {
	var b [1]byte
	if _, _, err := RecvMsg(h.fd, nil, b[:]); err != nil {
		_ = h.f.Modify(Readable)
		return
	}
	if b[0] != byte(h.n) {
		panic("out of order")
	}
	if h.n++; h.n == h.want {
		_ = h.f.Remove()
		h.done <- struct{}{}
		return
	}
	switch h.n % 4 {
	case 0:
		_ = h.f.Remove()
		h.add()
	case 1:
		_ = h.f.Modify(Readable | Writable)
	case 2:
		_ = h.f.Modify(0)
		h.r.PostFunc(func() { _ = h.f.Modify(Readable) })
	case 3:
		_ = h.f.Modify(Writable) // the next event finds its way back to Readable
	}
}
