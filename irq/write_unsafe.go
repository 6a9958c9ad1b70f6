package irq

import (
	"syscall"
	"unsafe"
)

// one is what a trigger adds to the counter: 8 bytes in host order. Never written.
var one uint64 = 1

// signal writes 1 to an eventfd.
//
// syscall.Syscall, not RawSyscall: the other side shares the file description and
// can make this write block, and then the scheduler must know, or the next garbage
// collection waits for this thread for good.
//
// The pointer is sound: it is to a package variable of the 8 bytes given, which the
// kernel only reads, converted in the argument list of the call.
func signal(fd int) syscall.Errno {
	for {
		_, _, e := syscall.Syscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		if e != syscall.EINTR {
			return e
		}
	}
}
