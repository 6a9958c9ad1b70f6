package machine

import (
	"errors"
	"os"
	"runtime"
	"strconv"
)

// Counters count what this process does between StartCounters and Stop, all its threads
// together. Counting system calls slows them, so nothing is timed meanwhile.
type Counters struct {
	before   runtime.MemStats
	syscalls *syscallCounter // nil: there is none, for err
	err      error
}

// Counted is what happened meanwhile.
type Counted struct {
	Allocs     uint64
	AllocBytes uint64
	Syscalls   uint64
	// SyscallsErr says why they are not counted.
	SyscallsErr error
}

// ErrNoSyscalls is why system calls are not counted where the kernel offers no tracepoint.
var ErrNoSyscalls = errors.New("machine: the kernel has no tracepoint for system calls, or this user may not use it")

// StartCounters begins to count. It is called, as Stop is, by a goroutine that is locked to its thread.
func StartCounters() *Counters {
	c := new(Counters)
	c.syscalls, c.err = newSyscallCounter()
	runtime.ReadMemStats(&c.before)
	if c.err == nil {
		c.err = c.syscalls.start()
	}
	return c
}

// Stop ends counting.
func (c *Counters) Stop() (n Counted) {
	if c.err == nil {
		c.err = c.syscalls.stop()
	}
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	n.Allocs = after.Mallocs - c.before.Mallocs
	n.AllocBytes = after.TotalAlloc - c.before.TotalAlloc
	if c.err == nil {
		n.Syscalls, c.err = c.syscalls.total()
	}
	if c.syscalls != nil {
		c.syscalls.close()
	}
	n.SyscallsErr = c.err
	return n
}

// threads are the ids of this process's threads.
func threads() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, entry := range entries {
		if id, err := strconv.Atoi(entry.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
