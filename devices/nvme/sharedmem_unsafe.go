package nvme

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// Numbers that the package syscall, which is frozen, does not have.
const (
	memfdCloexec      = 0x1
	memfdAllowSealing = 0x2
	addSeals          = 1033 // F_ADD_SEALS
	sealSeal          = 0x1
	sealShrink        = 0x2
	sealGrow          = 0x4
)

var memfdCreate = map[string]uintptr{"amd64": 319, "arm64": 279}

// sharedMemory makes a sealed memfd of size bytes and maps it: a client that has its
// descriptor cannot make it shorter.
func sharedMemory(name string, size int) (fd int, mem []byte, err error) {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, nil, err
	}
	// p points to a NUL-terminated string that stays alive during the call, as the
	// conversion stands in its argument list (rule 4 of package unsafe).
	r, _, errno := syscall.Syscall(memfdCreate[runtime.GOARCH], uintptr(unsafe.Pointer(p)), memfdCloexec|memfdAllowSealing, 0)
	if errno != 0 {
		return -1, nil, fmt.Errorf("nvme: memfd_create: %w", errno)
	}
	fd = int(r)
	if err = syscall.Ftruncate(fd, int64(size)); err == nil {
		if _, _, errno = syscall.Syscall(syscall.SYS_FCNTL, r, addSeals, sealSeal|sealShrink|sealGrow); errno != 0 {
			err = errno
		}
	}
	if err == nil {
		mem, err = syscall.Mmap(fd, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, nil, fmt.Errorf("nvme: shared memory for doorbells: %w", err)
	}
	return fd, mem, nil
}

func releaseSharedMemory(fd int, mem []byte) error {
	err := syscall.Munmap(mem)
	if e := syscall.Close(fd); err == nil {
		err = e
	}
	return err
}
