package engine

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// wakeup is the eventfd that a worker sleeps on. The engine alone holds it, so its
// counter never fills and writing to it never blocks.
type wakeup struct {
	fd       int
	signaled atomic.Bool // a signal is on its way: further ones need no system call
	poll     [1]unix.PollFd
}

var one = [8]byte{0: 1} // the value 1 in an eventfd; little-endian hosts only (amd64, arm64)

func (u *wakeup) open() (err error) {
	u.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

func (u *wakeup) close() { _ = unix.Close(u.fd) }

// signal ends the current wait, or the next one. Any goroutine.
func (u *wakeup) signal() {
	if !u.signaled.Swap(true) {
		_, _ = unix.Write(u.fd, one[:])
	}
}

// wait sleeps until a signal comes or the time is over; a negative time is for ever.
// Only the worker calls it.
func (u *wakeup) wait(d time.Duration) {
	var timeout *unix.Timespec
	if d >= 0 {
		ts := unix.NsecToTimespec(int64(d))
		timeout = &ts
	}
	u.poll[0] = unix.PollFd{Fd: int32(u.fd), Events: unix.POLLIN}
	n, err := unix.Ppoll(u.poll[:], timeout, nil)
	if err != nil || n == 0 {
		return // interrupted or timed out: the worker looks at its sources again
	}
	var buf [8]byte
	_, _ = unix.Read(u.fd, buf[:])
	u.signaled.Store(false)
}
