package machine

import (
	"strconv"
	"strings"
	"time"
)

// Load is the load average of the last minute: how many threads run or would like to. ok is
// false where it is unknown.
func Load() (load float64, ok bool) {
	first, _, _ := strings.Cut(read("/proc/loadavg"), " ")
	load, err := strconv.ParseFloat(first, 64)
	return load, err == nil
}

// Ticks are counters of /proc/stat, summed over all CPUs, in USER_HZ (10 ms).
type Ticks struct {
	Steal uint64 // while the hypervisor ran something else
	Total uint64
}

// ReadTicks gives zero where they are unknown.
func ReadTicks() Ticks { return parseTicks(read("/proc/stat")) }

// stealColumn is where /proc/stat has it; guest times behind it are part of user's.
const stealColumn = 7

func parseTicks(stat string) (t Ticks) {
	first, _, _ := strings.Cut(stat, "\n")
	name, rest, _ := strings.Cut(first, " ")
	if name != "cpu" {
		return Ticks{}
	}
	for i, column := range strings.Fields(rest) {
		n, err := strconv.ParseUint(column, 10, 64)
		if err != nil {
			return Ticks{}
		}
		if i <= stealColumn {
			t.Total += n
		}
		if i == stealColumn {
			t.Steal = n
		}
	}
	return t
}

// StolenSince is the share of time, 0 to 1, that was stolen between then and t.
func (t Ticks) StolenSince(then Ticks) float64 {
	if t.Total <= then.Total || t.Steal < then.Steal {
		return 0
	}
	return float64(t.Steal-then.Steal) / float64(t.Total-then.Total)
}

// spinSteps take some 2 ms at 3 GHz.
const spinSteps = 2_000_000

// Spin does a fixed piece of arithmetic that touches no memory, and returns how long that
// took: it varies only with the processor's frequency and with who else wants the processor.
func Spin() time.Duration {
	begin := time.Now()
	x := uint64(88172645463325252)
	for range spinSteps {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	took := time.Since(begin)
	if x == 0 { // never; but the loop must not be removed
		return 0
	}
	return took
}
