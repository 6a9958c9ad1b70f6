package reactor

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

func eventfds(tb testing.TB, n int) []int {
	tb.Helper()
	fds := make([]int, n)
	for i := range fds {
		e, err := NewEventfd()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = e.Close() })
		fds[i] = e.FD()
	}
	return fds
}

func TestMessageCarriesDescriptors(t *testing.T) {
	for _, c := range []struct {
		rule             string
		sent, room, want int
		err              error
	}{
		{"none", 0, 8, 0, nil},
		{"none, and no room", 0, 0, 0, nil},
		{"one", 1, 1, 1, nil},
		{"fewer than fit", 3, 8, 3, nil},
		{"an even number", 8, 8, 8, nil},
		{"an odd number", 7, 7, 7, nil},
		{"as many as the kernel allows", MaxFDs, MaxFDs, MaxFDs, nil},
		{"more room than the kernel needs", MaxFDs, 2 * MaxFDs, MaxFDs, nil},
		{"one too many for an odd room", 8, 7, 0, ErrTruncated},
		{"one too many for an even room", 9, 8, 0, ErrTruncated},
		{"no room", 1, 0, 0, ErrTruncated},
	} {
		t.Run(c.rule, func(t *testing.T) {
			holdings.CheckLeaks(t)
			a, b := socketPair(t)
			mustSend(t, a, []byte("message"), eventfds(t, c.sent)...)
			before := holdings.Descriptors(t)
			var buf [64]byte
			fds := make([]int, c.room)
			n, nfds, err := RecvMsg(b, fds, buf[:])
			if n != 7 || nfds != c.want || !errors.Is(err, c.err) || string(buf[:n]) != "message" {
				t.Fatalf("RecvMsg = %d, %d, %v", n, nfds, err)
			}
			if got := holdings.Descriptors(t) - before; got != c.want {
				t.Errorf("%d descriptors arrived, want %d", got, c.want)
			}
			for _, fd := range fds[:nfds] {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor %d: flags %#x, %v: not close-on-exec", fd, flags, err)
				}
			}
			CloseFDs(fds[:nfds])
			if got := holdings.Descriptors(t) - before; got != 0 {
				t.Errorf("%d descriptors left after CloseFDs", got)
			}
		})
	}
}

// Descriptors arrive with the message that they were sent with, whatever else waits in the stream.
func TestReadEndsAtTheMessageWithDescriptors(t *testing.T) {
	holdings.CheckLeaks(t)
	a, b := socketPair(t)
	fds := eventfds(t, 2)
	mustSend(t, a, []byte("one"))
	mustSend(t, a, []byte("two"), fds[0])
	mustSend(t, a, []byte("three"), fds[1])
	mustSend(t, a, []byte("four"))
	type segment struct {
		text string
		fds  int
	}
	var got []segment
	for range 3 {
		var buf [64]byte
		var in [4]int
		n, nfds, err := RecvMsg(b, in[:], buf[:])
		if err != nil {
			t.Fatal(err)
		}
		CloseFDs(in[:nfds])
		got = append(got, segment{string(buf[:n]), nfds})
	}
	if want := []segment{{"onetwo", 1}, {"three", 1}, {"four", 0}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBuffersAreGatheredAndScattered(t *testing.T) {
	holdings.CheckLeaks(t)
	a, b := socketPair(t)
	n, err := SendMsg(a, nil, nil, []byte("head"), nil, []byte("er"), []byte("payload"))
	if n != 13 || err != nil {
		t.Fatalf("SendMsg = %d, %v", n, err)
	}
	x, y := make([]byte, 6), make([]byte, 100)
	n, _, err = RecvMsg(b, nil, x, nil, y)
	if n != 13 || err != nil || string(x) != "header" || string(y[:7]) != "payload" {
		t.Errorf("RecvMsg = %d, %v: %q %q", n, err, x, y)
	}

	many := make([][]byte, MaxBuffers+4)
	for i := range many {
		many[i] = []byte{byte(i)}
	}
	if n, err := SendMsg(a, nil, many...); n != MaxBuffers || err != nil {
		t.Errorf("SendMsg of %d buffers = %d, %v", len(many), n, err)
	}
}

func TestSocketErrors(t *testing.T) {
	holdings.CheckLeaks(t)
	buf := make([]byte, 16)
	recv := func(fd int) error {
		_, _, err := RecvMsg(fd, nil, buf)
		return err
	}
	send := func(fd int) error {
		_, err := SendMsg(fd, nil, buf)
		return err
	}
	open, peer := socketPair(t)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	CloseFDs(p[1:])
	defer CloseFDs(p[:1])
	full, _ := socketPair(t)
	for {
		if _, err := SendMsg(full, nil, buf); err != nil {
			break
		}
	}
	for _, c := range []struct {
		rule string
		err  error
		want error
	}{
		{"receive from an empty stream, blocking socket or not", recv(open), unix.EAGAIN},
		{"receive from a peer that is gone", recv(p[0]), io.EOF},
		{"send to a peer that is gone, without a signal", send(p[0]), unix.EPIPE},
		{"send to a full stream", send(full), unix.EAGAIN},
		{"receive from a closed descriptor", recv(-1), unix.EBADF},
		{"send to a closed descriptor", send(-1), unix.EBADF},
		{"receive into nothing", func() error { _, _, err := RecvMsg(open, nil); return err }(), unix.EINVAL},
		{"send nothing", func() error { _, err := SendMsg(open, nil, nil); return err }(), unix.EINVAL},
		{"send too many descriptors", func() error { _, err := SendMsg(open, make([]int, MaxFDs+1), buf); return err }(), unix.EINVAL},
		{"send a closed descriptor", func() error { _, err := SendMsg(open, []int{-1}, buf); return err }(), unix.EBADF},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.rule, c.err, c.want)
		}
		if errno := syscall.Errno(0); c.want != io.EOF && !errors.As(c.err, &errno) {
			t.Errorf("%s: %v carries no errno", c.rule, c.err)
		}
	}
	if err := recv(peer); err != unix.EAGAIN {
		t.Errorf("a refused send has sent something: %v", err)
	}
}

// A large message goes out in parts; what is sent arrives whole.
func TestPartialSend(t *testing.T) {
	holdings.CheckLeaks(t)
	a, b := socketPair(t)
	out := make([]byte, 4<<20)
	for i := range out {
		out[i] = byte(i >> 8)
	}
	fds := eventfds(t, 1)
	var in []byte
	gotFDs := 0
	buf := make([]byte, 64<<10)
	for sent := 0; sent < len(out); {
		pass := fds
		if sent > 0 {
			pass = nil // gone with the first byte
		}
		n, err := SendMsg(a, pass, out[sent:])
		if err == nil {
			sent += n
		} else if err != unix.EAGAIN {
			t.Fatal(err)
		}
		for {
			var got [4]int
			n, nfds, err := RecvMsg(b, got[:], buf)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			CloseFDs(got[:nfds])
			gotFDs += nfds
			in = append(in, buf[:n]...)
		}
	}
	if !bytes.Equal(in, out) || gotFDs != 1 {
		t.Errorf("%d bytes of %d and %d descriptors arrived", len(in), len(out), gotFDs)
	}
}
