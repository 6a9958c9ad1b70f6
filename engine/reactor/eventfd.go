package reactor

import (
	"encoding/binary"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Eventfd owns a non-blocking eventfd of this process. Signal and Drain are raw system calls that rely on it: whoever
// hands the descriptor to a peer lets that peer make it blocking, and then a call here could hang. Closing it again does
// nothing. Close must not run at the same time as another method.
type Eventfd struct {
	fd atomic.Int64 // -1: closed
}

// NewEventfd opens an eventfd with counter 0.
func NewEventfd() (*Eventfd, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	e := new(Eventfd)
	e.fd.Store(int64(fd))
	return e, nil
}

// FD returns the descriptor, which stays owned by e, or -1 after Close.
func (e *Eventfd) FD() int { return int(e.fd.Load()) }

// Signal adds one to the counter. A counter that is full stays as it is: its reader has a wake-up to come anyway.
func (e *Eventfd) Signal() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	for {
		if err := rawWrite(e.FD(), one[:]); err != unix.EINTR {
			return
		}
	}
}

// Drain takes the counter down to zero and returns what it was.
func (e *Eventfd) Drain() uint64 {
	var b [8]byte
	for {
		switch err := rawRead(e.FD(), b[:]); err {
		case nil:
			return binary.NativeEndian.Uint64(b[:])
		case unix.EINTR:
		default:
			return 0
		}
	}
}

// DrainShared takes the counter of an eventfd down to zero and returns what it was. It never blocks, although a peer that
// shares the file description may have made it blocking, and may have taken the counter down itself: then it is 0.
//
// Errors: unix.EOPNOTSUPP on a kernel before 5.8, any other errno of preadv2(2).
func DrainShared(fd int) (uint64, error) {
	var b [8]byte
	for {
		switch err := rawReadNow(fd, b[:]); err {
		case nil:
			return binary.NativeEndian.Uint64(b[:]), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}

// Close closes the descriptor.
func (e *Eventfd) Close() error {
	fd := e.fd.Swap(-1)
	if fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(int(fd)))
}
