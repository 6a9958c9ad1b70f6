package machine

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

func TestDistance(t *testing.T) {
	holdings.CheckLeaks(t)
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) < 2 {
		t.Skip("there is one CPU only")
	}
	if d := Distance(cpus[0], cpus[1]); d < time.Nanosecond || d > time.Second {
		t.Error(d)
	}
	if d := Distance(cpus[0], len(allowed)*64-1); d != 0 {
		t.Error("of a CPU that is not there:", d)
	}
}
