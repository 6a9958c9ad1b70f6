package block

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendVector is sendmsg(2) of a vector: without blocking, without SIGPIPE, and without the copy
// that package unix makes of the vector. msg and the vector lie in the heap and stay put during
// the call, and so do the buffers, which the vector keeps reachable. The kernel checks every
// address: a buffer in memory that has gone gives EFAULT.
func sendVector(fd uintptr, msg *unix.Msghdr, iov []unix.Iovec) (int, syscall.Errno) {
	return message(unix.SYS_SENDMSG, fd, msg, iov, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// receiveVector is recvmsg(2) into a vector, in the same way.
func receiveVector(fd uintptr, msg *unix.Msghdr, iov []unix.Iovec) (int, syscall.Errno) {
	return message(unix.SYS_RECVMSG, fd, msg, iov, unix.MSG_DONTWAIT)
}

func message(trap, fd uintptr, msg *unix.Msghdr, iov []unix.Iovec, flags uintptr) (int, syscall.Errno) {
	*msg = unix.Msghdr{Iov: unsafe.SliceData(iov)}
	msg.SetIovlen(len(iov))
	n, _, errno := unix.Syscall(trap, fd, uintptr(unsafe.Pointer(msg)), flags)
	msg.Iov = nil
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
