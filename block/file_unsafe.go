package block

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is what the file backend asks of the operating system; tests put
// failures in its place.
type kernel struct {
	preadv2, pwritev2 func(fd int, iov []unix.Iovec, off int64, flags int) (int, syscall.Errno)
	fallocate         func(fd int, mode uint32, off, n int64) error
	fdatasync         func(fd int) error
	setupRing         func(entries uint32) (fd int, m ringMemory, err error)
	enterRing         func(fd int, n uint32) (int, syscall.Errno)
	result            func(r *Request, res int32) int32 // what the ring says of a request
}

func systemKernel() kernel {
	return kernel{preadv2: preadv2, pwritev2: pwritev2, fallocate: unix.Fallocate, fdatasync: unix.Fdatasync,
		setupRing: setupRing, enterRing: enterRing, result: func(_ *Request, res int32) int32 { return res }}
}

func preadv2(fd int, iov []unix.Iovec, off int64, flags int) (int, syscall.Errno) {
	return vectored(unix.SYS_PREADV2, fd, iov, off, flags)
}

func pwritev2(fd int, iov []unix.Iovec, off int64, flags int) (int, syscall.Errno) {
	return vectored(unix.SYS_PWRITEV2, fd, iov, off, flags)
}

// vectored calls preadv2(2) or pwritev2(2) without the copy of the vector that
// package unix makes. The offset's upper half is its own argument and unused
// where registers have 64 bits.
//
// The vector lies in the heap and stays put during the call, and so do the
// buffers, which it keeps reachable. The kernel checks every address, so a
// buffer in memory that has gone gives EFAULT.
func vectored(trap uintptr, fd int, iov []unix.Iovec, off int64, flags int) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))),
		uintptr(len(iov)), uintptr(off), 0, uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// blockDeviceSize returns the size of a block device in bytes.
func blockDeviceSize(fd int) (int64, error) {
	var size uint64
	// BLKGETSIZE64 stores eight bytes, which is what size has.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int64(size), nil
}
