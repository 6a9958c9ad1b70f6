package bench

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the limits, without the scheduler: where they can block nothing else
// runs in the process that waits for them.
//
// The pointers are sound: each is to memory that the caller keeps alive by its own reference
// until the call returns, at least as long as the length beside it says, and is converted in
// the argument list of the call.

// rawWrite is write(2). p is not empty.
func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), e
}

// rawMessage is recvmsg(2) or sendmsg(2) of one buffer, which is not empty.
type rawMessage struct {
	vector unix.Iovec
	header unix.Msghdr
}

func (m *rawMessage) call(number uintptr, fd int, p []byte, flags int) (int, syscall.Errno) {
	m.vector.Base = &p[0]
	m.vector.SetLen(len(p))
	m.header = unix.Msghdr{Iov: &m.vector, Iovlen: 1}
	n, _, e := unix.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(&m.header)), uintptr(flags))
	return int(n), e
}

// rawEpollWait is epoll_wait(2) without a time-out.
func rawEpollWait(epoll int, events []unix.EpollEvent) (int, syscall.Errno) {
	const forever = ^uintptr(0)
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), forever, 0, 0)
	return int(n), e
}

// rawWritev is writev(2). vector is not empty.
func rawWritev(fd int, vector []unix.Iovec) (int, syscall.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&vector[0])), uintptr(len(vector)))
	return int(n), e
}

// afterBytes is what is left of a vector without its first n bytes. It changes the vector.
func afterBytes(vector []unix.Iovec, n int) []unix.Iovec {
	for len(vector) > 0 && n >= int(vector[0].Len) {
		n -= int(vector[0].Len)
		vector = vector[1:]
	}
	if n > 0 {
		vector[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(vector[0].Base), n))
		vector[0].SetLen(int(vector[0].Len) - n)
	}
	return vector
}
