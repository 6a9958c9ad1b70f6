package reactor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Raw system calls that cannot block, so the scheduler need not be told. Invariant for every pointer handed to the kernel
// here: it points to memory that is alive during the call (the conversion stands in the call itself), that does not move (a
// stack cannot while its goroutine is in a raw system call), and the kernel does not keep it.

// rawRead reads from a non-blocking descriptor.
func rawRead(fd int, b []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return errno
	}
	return nil
}

// rawWrite writes to a non-blocking descriptor.
func rawWrite(fd int, b []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return errno
	}
	return nil
}

// rawReadable tells whether fd is readable now.
func rawReadable(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	var none unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&none)), 0, 0, 0)
	return errno == 0 && n == 1
}
