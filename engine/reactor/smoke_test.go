package reactor

import (
	"testing"

	"golang.org/x/sys/unix"
)

type handlerFunc func(Events)

func (f handlerFunc) HandleEvents(ev Events) { f(ev) }

func TestSmoke(t *testing.T) {
	r, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	var f *FD
	r.Do(func() {
		f, err = r.Add(p[0], Readable, handlerFunc(func(Events) {
			b := make([]byte, 10)
			fds := make([]int, 4)
			n, k, err := RecvMsg(p[0], fds, b)
			if err != nil || k != 1 {
				t.Error(n, k, err)
			}
			CloseFDs(fds[:k])
			got <- string(b[:n])
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := SendMsg(p[1], []int{p[1]}, []byte("ab"), []byte("cd")); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if s := <-got; s != "abcd" {
		t.Fatal(s)
	}
	r.Do(func() { f.Remove() })
	CloseFDs(p[:])
	r.Close()
}
