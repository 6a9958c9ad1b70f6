package measure

import (
	"fmt"
	"slices"

	"vfiouser/bench/machine"
	"vfiouser/bench/result"
)

// noise collects what disturbs a run.
type noise struct {
	load  float64
	ticks machine.Ticks
	spins []float64 // ns
}

func beginNoise() *noise {
	load, _ := machine.Load() // 0: unknown
	return &noise{load: load, ticks: machine.ReadTicks()}
}

// spin does the fixed piece of work once more.
func (n *noise) spin() { n.spins = append(n.spins, float64(machine.Spin())) }

// end says what there was.
func (n *noise) end(r *result.Report, d *distance) result.Noise {
	after, _ := machine.Load()
	s := slices.Sorted(slices.Values(n.spins))
	out := result.Noise{
		LoadBefore: n.load, LoadAfter: after, Stolen: machine.ReadTicks().StolenSince(n.ticks),
		Spin: result.Summarize(s), Distance: result.Summarize(d.seen),
	}
	if len(d.seen) > 0 {
		out.Apart = float64(d.apart) / float64(len(d.seen))
	}
	if len(s) > 0 {
		out.SpinSpread = (s[len(s)*9/10] - s[len(s)/10]) / out.Spin.Median
	}
	out.Notes = notes(out, r)
	return out
}

// notes puts in words what a reader must know before he trusts the figures.
func notes(n result.Noise, r *result.Report) []string {
	list := []string{}
	if n.Busy(r.Environment.CPUs) {
		list = append(list, fmt.Sprintf("The machine was busy before the run: load average %.2f on %d CPUs.", n.LoadBefore, r.Environment.CPUs))
	}
	if n.Robbed() {
		list = append(list, fmt.Sprintf("The hypervisor took %.1f %% of the processors' time for others.", n.Stolen*100))
	}
	if n.Unsteady() {
		list = append(list, fmt.Sprintf("A fixed piece of arithmetic, repeated through the run, varied by %.0f %%: "+
			"the processor's speed changed, or something else used it.", n.SpinSpread*100))
	}
	if n.Moved() {
		list = append(list, fmt.Sprintf("In %.0f %% of the measurements the two processors were farther from each other than at best: "+
			"the hypervisor moves them.", n.Apart*100))
	}
	if !r.Environment.Pinned {
		list = append(list, "Nothing was pinned: there is one CPU only, or affinity is not allowed.")
	}
	measured, noisy, counted := 0, 0, false
	for i := range r.Cases {
		if r.Cases[i].Measured() {
			measured++
		}
		if r.Cases[i].Noisy {
			noisy++
		}
		counted = counted || r.Cases[i].Syscalls != nil
	}
	if noisy > 0 {
		list = append(list, fmt.Sprintf("%d of %d results are marked ~: their interval is wider than a tenth of the value.", noisy, measured))
	}
	if !counted {
		list = append(list, "System calls were not counted: that takes root and tracefs.")
	}
	if len(list) == 0 {
		list = append(list, "Nothing was noticed: the machine was quiet.")
	}
	return list
}
