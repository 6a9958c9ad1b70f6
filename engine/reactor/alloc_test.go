package reactor

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

// Nothing on the way of a message allocates.
func TestZeroAllocations(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, client := socketPair(t)
	addFD(t, r, server, Readable, &echoHandler{r: r, fd: server})
	if err := unix.SetNonblock(client, false); err != nil {
		t.Fatal(err)
	}
	x, y := socketPair(t)
	pass := eventfds(t, 2)
	header, payload := make([]byte, 16), make([]byte, 64)
	in := make([]byte, 128)
	fds := make([]int, 8)
	back := make(chan struct{})
	task := signalTask(back)
	var timer *Timer
	on(t, r, func() { timer = r.AfterFunc(0, func() { back <- struct{}{} }) })
	wait(t, back, "the timer")
	rearm := taskFunc(func() { timer.Reset(0) })

	for _, c := range []struct {
		what string
		do   func()
	}{
		{"Post", func() {
			r.Post(task)
			<-back
		}},
		{"event dispatch", func() {
			if _, err := unix.Write(client, payload); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Read(client, in); err != nil {
				t.Fatal(err)
			}
		}},
		{"SendMsg and RecvMsg", func() {
			if _, err := SendMsg(x, nil, header, payload); err != nil {
				t.Fatal(err)
			}
			if _, _, err := RecvMsg(y, fds, in); err != nil {
				t.Fatal(err)
			}
			if _, _, err := RecvMsg(y, fds, in[:16], in[16:]); err != unix.EAGAIN {
				t.Fatal(err)
			}
		}},
		{"SendMsg and RecvMsg with descriptors", func() {
			if _, err := SendMsg(x, pass, header, payload); err != nil {
				t.Fatal(err)
			}
			_, n, err := RecvMsg(y, fds, in)
			if err != nil || n != 2 {
				t.Fatal(n, err)
			}
			CloseFDs(fds[:n])
		}},
		{"timer", func() {
			r.Post(rearm)
			<-back
		}},
	} {
		if n := testing.AllocsPerRun(200, c.do); n != 0 {
			t.Errorf("%s: %v allocations", c.what, n)
		}
	}
}
