package machine

import "golang.org/x/sys/unix"

// Pin moves the calling thread, which its goroutine has locked, to a CPU, and keeps it there. The
// error is that of sched_setaffinity(2).
func Pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}
