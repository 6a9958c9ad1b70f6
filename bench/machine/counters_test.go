package machine

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

var sink []byte

func TestCountersCount(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const times = 1000
	other := make(chan struct{})
	c := StartCounters()
	for range times {
		unix.Getppid()
		sink = make([]byte, 100)
	}
	go func() { // on another thread, for this one is locked
		for range times {
			unix.Getppid()
		}
		close(other)
	}()
	<-other
	n := c.Stop()
	const slack = times / 10 // the runtime's own
	if n.Allocs < times || n.Allocs > times+slack || n.AllocBytes < 100*times {
		t.Errorf("%d allocations of %d bytes", n.Allocs, n.AllocBytes)
	}
	if n.SyscallsErr != nil {
		t.Skip("system calls:", n.SyscallsErr)
	}
	if n.Syscalls < 2*times || n.Syscalls > 2*times+slack {
		t.Errorf("%d system calls of %d", n.Syscalls, 2*times)
	}
}

func TestCountersCountNothing(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	least := ^uint64(0)
	for range 5 {
		n := StartCounters().Stop()
		if n.SyscallsErr != nil {
			if _, err := tracepoint(); errors.Is(err, ErrNoSyscalls) && !errors.Is(n.SyscallsErr, ErrNoSyscalls) {
				t.Error(n.SyscallsErr)
			}
			t.Skip("system calls:", n.SyscallsErr)
		}
		least = min(least, n.Syscalls+n.Allocs)
	}
	if least > 10 {
		t.Error(least, "are counted of nothing")
	}
}
