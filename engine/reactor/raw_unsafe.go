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

// rawReadNow reads from a descriptor that a peer may have made blocking.
func rawReadNow(fd int, b []byte) error {
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	const here = ^uintptr(0) // offset -1: what has no position is read as by read(2)
	_, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, here, here, unix.RWF_NOWAIT)
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

// rawEpollWait fills events with what is ready now, without waiting, and returns how many there are.
func rawEpollWait(epoll int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
