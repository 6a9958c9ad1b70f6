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
