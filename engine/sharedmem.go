package engine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SharedMemory makes memory that a Region can have mapped: a memfd of size bytes, a
// multiple of the page size, and the mapping of it. It is sealed, so that a client that has
// its descriptor cannot make it shorter. Clients write to it at any time: use the functions
// of package dma. Give it back with ReleaseSharedMemory.
func SharedMemory(name string, size int) (fd int, mem []byte, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, nil, fmt.Errorf("memfd_create: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err == nil {
		mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, nil, fmt.Errorf("%d bytes of shared memory: %w", size, err)
	}
	return fd, mem, nil
}

// ReleaseSharedMemory gives back what SharedMemory made.
func ReleaseSharedMemory(fd int, mem []byte) error {
	err := unix.Munmap(mem)
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}
