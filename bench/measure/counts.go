package measure

import (
	"vfiouser/bench/machine"
	"vfiouser/bench/result"
)

const (
	// countedRounds are the rounds in which allocations and system calls are counted. The least
	// of them counts: what other goroutines do meanwhile only adds.
	countedRounds = 3
	// countedOperations bounds what is counted at once.
	countedOperations = 10_000
)

// counts are per operation.
type counts struct {
	seen                         bool
	allocs, allocBytes, syscalls float64
	syscallsErr                  error
}

func (c *counts) observe(n int, run func(n int) error) error {
	n = min(n, countedOperations)
	counters := machine.StartCounters()
	err := run(n)
	counted := counters.Stop()
	if err != nil {
		return err
	}
	per := func(total uint64, before float64) float64 {
		if v := float64(total) / float64(n); !c.seen || v < before {
			return v
		}
		return before
	}
	c.allocs, c.allocBytes = per(counted.Allocs, c.allocs), per(counted.AllocBytes, c.allocBytes)
	c.syscalls, c.syscallsErr = per(counted.Syscalls, c.syscalls), counted.SyscallsErr
	c.seen = true
	return nil
}

func (c *counts) fill(r *result.Case) {
	if !c.seen {
		return
	}
	r.Allocs, r.AllocBytes = &c.allocs, &c.allocBytes
	if c.syscallsErr == nil {
		r.Syscalls = &c.syscalls
	}
}
