package client

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is room for the descriptors of one message (maxFDs), header and alignment included.
const controlSize = unix.SizeofCmsghdr + maxFDs*4

// receive is recvmsg(2) on a stream socket; control takes descriptors. With blocking false it goes past the scheduler,
// which is quicker and sound only because it cannot wait. With blocking true it waits in the kernel, which is what
// makes a round trip as cheap as in C; the socket's receive time-out bounds the wait.
//
// x/sys has Recvmsg, but that allocates the name of the peer each time.
func receive(fd int, buf, control []byte, blocking bool) (n, ncontrol, flags int, err error) {
	var (
		iov unix.Iovec
		msg unix.Msghdr
	)
	// Sound: buf and control are not empty, live on the heap until the call has returned, and the kernel
	// writes no more than their lengths.
	iov.Base = unsafe.SliceData(buf)
	iov.SetLen(len(buf))
	msg.Iov = &iov
	msg.SetIovlen(1)
	msg.Control = unsafe.SliceData(control)
	msg.SetControllen(len(control))
	// Sound: msg is on this stack or the heap and is converted to uintptr in the call itself.
	var r uintptr
	var errno unix.Errno
	if blocking {
		r, _, errno = unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_CMSG_CLOEXEC)
	} else {
		r, _, errno = unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	}
	if errno != 0 {
		return 0, 0, 0, errno
	}
	return int(r), int(msg.Controllen), int(msg.Flags), nil
}
