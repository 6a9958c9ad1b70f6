package reactor_test

import (
	"fmt"

	"golang.org/x/sys/unix"
	"vfiouser/engine/reactor"
)

// echo sends back what arrives on a socket.
type echo struct {
	r  *reactor.Reactor
	fd int
	f  *reactor.FD
}

func (e *echo) HandleEvents(reactor.Events) {
	var buf [64]byte
	n, _, err := reactor.RecvMsg(e.fd, nil, buf[:])
	switch err {
	case nil:
		_, _ = reactor.SendMsg(e.fd, nil, buf[:n])
		e.r.Quiet()
	case unix.EAGAIN: // events are hints
	default:
		_ = e.f.Remove() // before the descriptor is closed
	}
}

func Example() {
	r, err := reactor.New(reactor.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reactor.CloseFDs(pair[:])

	e := &echo{r: r, fd: pair[0]}
	if derr := r.Do(func() { e.f, err = r.Add(e.fd, reactor.Readable, e) }); derr != nil || err != nil {
		fmt.Println(derr, err)
		return
	}
	var reply [64]byte
	_, _ = unix.Write(pair[1], []byte("hello"))
	n, _ := unix.Read(pair[1], reply[:])
	fmt.Printf("%s\n", reply[:n])
	_ = r.Do(func() { _ = e.f.Remove() })
	// Output: hello
}
