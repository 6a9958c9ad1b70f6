package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariant for every pointer handed to the kernel here: it points to memory that is alive
// during the call (the conversion stands in the call itself), that does not move (neither does
// a stack while its goroutine is in a system call), and the kernel does not keep it. An iovec's
// base is a pointer for the garbage collector, too: one to guest memory must not outlive the
// section in which it was found.

// readNow reads from a non-blocking descriptor into memory of this process. The call is raw,
// because it cannot block: the scheduler need not be told.
func readNow(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// writev writes to a non-blocking descriptor. The memory may be a guest's, and have to be read
// from a disk first.
func writev(fd int, iov []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return int(n), errno
}

// sendNow sends on a stream socket without waiting for room. The memory may be a guest's.
func sendNow(fd int, iov []unix.Iovec) (int, unix.Errno) {
	var msg unix.Msghdr
	msg.Iov = unsafe.SliceData(iov)
	msg.SetIovlen(len(iov))
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(n), errno
}

// setIovec has v describe b. Sound: the base is kept as a pointer.
func setIovec(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}
