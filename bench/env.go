package bench

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vfiouser/bench/machine"
)

// Env is what a Setup finds: its folder, its CPUs, its log, and who cleans up. It belongs to
// the thread that measures.
type Env struct {
	// Dir is an empty folder, gone after Close. Its path is short enough for sockets.
	Dir string
	// DeviceCPUs are for engine.Config.WorkerCPUs. Empty: workers are not pinned, because
	// there is but one CPU.
	DeviceCPUs []int
	// DriverCPU is where the measuring thread is, apart from the workers. -1: anywhere.
	DriverCPU int
	// Log takes what goes wrong.
	Log *slog.Logger

	// small is for tests, in which it is the operations that count: memory, disks and files
	// are small, and a rate is found quickly.
	small    bool
	allowed  unix.CPUSet
	cleanups []func()
}

// longestDir leaves room for names of 8 bytes in the 107 of a socket's path.
const longestDir = 98

// NewEnv makes an Env and pins the calling thread, which the caller has locked, to DriverCPU.
// Close it on the same thread.
func NewEnv(log *slog.Logger) (*Env, error) {
	dir, err := os.MkdirTemp("", "vfub")
	if err != nil {
		return nil, err
	}
	if len(dir) > longestDir {
		return nil, errors.Join(fmt.Errorf("bench: a socket's path cannot be as long as that of %s: set TMPDIR to a shorter one", dir), os.Remove(dir))
	}
	e := &Env{Dir: dir, DriverCPU: -1, Log: log}
	if unix.SchedGetaffinity(0, &e.allowed) != nil {
		return e, nil // nothing is pinned
	}
	var cpus []int
	for cpu := range len(e.allowed) * 64 {
		if e.allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) > 1 {
		e.DriverCPU = cpus[len(cpus)-1]
		e.DeviceCPUs = cpus[:len(cpus)-1]
		if err := e.pin(e.DriverCPU); err != nil {
			e.DriverCPU, e.DeviceCPUs = -1, nil
		}
	}
	return e, nil
}

// pin moves the measuring thread to a CPU, for example to that of the other side. Close moves
// it back.
func (e *Env) pin(cpu int) error {
	if cpu < 0 || !e.allowed.IsSet(cpu) {
		return fmt.Errorf("bench: CPU %d is not for us", cpu)
	}
	return machine.Pin(cpu)
}

// Cleanup has f called by Close. What came last is called first.
func (e *Env) Cleanup(f func()) { e.cleanups = append(e.cleanups, f) }

// Close calls the cleanups, removes Dir, and lets the thread go where it was allowed to before.
func (e *Env) Close() error {
	for _, f := range slices.Backward(e.cleanups) {
		f()
	}
	e.cleanups = nil
	if e.allowed.Count() > 0 {
		_ = unix.SchedSetaffinity(0, &e.allowed) // it was like that before
	}
	return os.RemoveAll(e.Dir)
}

// unlocked makes a Run that does its operations on a goroutine of their own, free to move
// between threads: for operations that wait for other goroutines, which takes the measuring
// thread, locked and pinned as it is, longer than it takes a program's goroutine.
func unlocked(run func(n int) error) func(n int) error {
	return func(n int) error {
		done := make(chan error)
		go func() { done <- run(n) }()
		return <-done
	}
}
