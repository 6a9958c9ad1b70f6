package compare

import (
	"fmt"
	"math"

	"vfiouser/bench/result"
)

// environments says how the machines and the builds differ, and whether the machine is the same.
func (c *Comparison) environments(before, after *result.Report) {
	a, b := &before.Environment, &after.Environment
	c.SameMachine = true
	differ := func(what, old, now string, machine bool) {
		if old == now {
			return
		}
		c.Differences = append(c.Differences, fmt.Sprintf("%s: %s before, %s now", what, orNothing(old), orNothing(now)))
		c.SameMachine = c.SameMachine && !machine
	}
	differ("processor", a.CPU, b.CPU, true)
	differ("processors", fmt.Sprint(a.CPUs), fmt.Sprint(b.CPUs), true)
	differ("architecture", a.Arch, b.Arch, true)
	differ("kernel", a.Kernel, b.Kernel, true)
	differ("hypervisor", a.Hypervisor, b.Hypervisor, true)
	differ("frequency governor", a.Governor, b.Governor, true)
	differ("transparent huge pages", a.HugePages, b.HugePages, true)
	differ("pinned", fmt.Sprint(a.Pinned), fmt.Sprint(b.Pinned), true)
	if math.Abs(float64(a.Memory)-float64(b.Memory)) > 0.02*float64(max(a.Memory, b.Memory)) { // kernels keep some of it
		differ("memory", fmt.Sprintf("%d MiB", a.Memory>>20), fmt.Sprintf("%d MiB", b.Memory>>20), true)
	}
	differ("Go", a.Go, b.Go, false)
	differ("commit", commit(a), commit(b), false)
	differ("mode", before.Mode, after.Mode, false)
	if !c.SameMachine {
		c.Notes = append(c.Notes, "The machines differ: only costs in terms of the limit are compared, not times.")
	}
	for _, r := range []struct {
		name string
		*result.Report
	}{{"old", before}, {"new", after}} {
		if r.Noise.Disturbed() {
			c.disturbed = true
			c.Notes = append(c.Notes, fmt.Sprintf("The %s run was disturbed by something else on the machine: percentiles of latency are not compared.", r.name))
		}
		if n := noisy(r.Report); n > 0 {
			c.Notes = append(c.Notes, fmt.Sprintf("In the %s run %d of %d results have wide intervals.", r.name, n, len(r.Cases)))
		}
	}
}

func commit(e *result.Environment) string {
	if e.Modified {
		return e.Commit + " with changes"
	}
	return e.Commit
}

func orNothing(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func noisy(r *result.Report) (n int) {
	for i := range r.Cases {
		if r.Cases[i].Noisy {
			n++
		}
	}
	return n
}
