package link_test

import (
	"os"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// faulty returns a page of shared memory whose file has been truncated, as a client may do.
func faulty(t *testing.T) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	page := os.Getpagesize()
	must(t, unix.Ftruncate(fd, int64(page)))
	mem, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, unix.Ftruncate(fd, 0))
	must(t, unix.Close(fd))
	t.Cleanup(func() { must(t, unix.Munmap(mem)) })
	return mem
}

// faults fails the test unless do ends with a memory fault.
func faults(t *testing.T, do func()) {
	t.Helper()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		t.Helper()
		if _, ok := recover().(interface{ Addr() uintptr }); !ok {
			t.Error("no memory fault")
		}
	}()
	do()
}
