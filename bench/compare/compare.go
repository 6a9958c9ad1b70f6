package compare

import (
	"math"

	"vfiouser/bench/result"
)

// Alpha is the probability that anything is claimed of two runs that differ in nothing.
const Alpha = 0.05

// Verdict is what is said of a case.
type Verdict string

// The verdicts.
const (
	NoChange Verdict = "no change"
	Faster   Verdict = "faster"
	Slower   Verdict = "slower"
	// Allocates is a case that took no allocation, and takes one or more for each operation or
	// every other one, and is not slower beyond doubt.
	Allocates Verdict = "allocates"
	// Fails is a case that was measured before and cannot be now.
	Fails Verdict = "fails"
	// Incomparable is a case of which nothing can be said: it has no limit, and the machine is
	// another; or its unit is.
	Incomparable Verdict = "not comparable"
)

// Comparison is of two runs.
type Comparison struct {
	Threshold float64 `json:"threshold"` // 0.05 is 5 %
	// SameMachine is false if the environments differ in more than the build; Differences says how.
	SameMachine bool     `json:"same_machine"`
	Differences []string `json:"differences"`
	// Notes are what to know before the verdicts are trusted.
	Notes []string `json:"notes"`
	Cases []Case   `json:"cases"`
	// OnlyOld and OnlyNew name cases that the other run has not.
	OnlyOld []string `json:"only_old"`
	OnlyNew []string `json:"only_new"`
	// Time and Cost are geometric means of new over old, less one, over the operations that both
	// have. nil: there are none.
	Time *float64 `json:"time,omitempty"`
	Cost *float64 `json:"cost,omitempty"`
	// disturbed: one of the runs was, and percentiles are not judged.
	disturbed bool
	// Regressions is how many cases are slower, allocate, or fail.
	Regressions int `json:"regressions"`
}

// Case is a case of both runs.
type Case struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	Finding
	// P50 and P99 compare percentiles of the latency of single operations. nil: not in both runs,
	// or, where there is no limit, the machine is another.
	P50 *Finding `json:"p50,omitempty"`
	P99 *Finding `json:"p99,omitempty"`
	// Allocs and Syscalls are per operation, old and new, where they differ by one half or more.
	Allocs   *[2]float64 `json:"allocs,omitempty"`
	Syscalls *[2]float64 `json:"syscalls,omitempty"`
	Reason   string      `json:"reason,omitempty"` // of Fails and Incomparable
}

// Finding is what is found of one quantity of a case: the time of an operation, a percentile of the
// latency, a gauge's value.
type Finding struct {
	// Value compares the quantity, Cost what it is in terms of the limit's time. nil: there is
	// none, or, for Value, the machine is another.
	Value   *Change `json:"value,omitempty"`
	Cost    *Change `json:"cost,omitempty"`
	Verdict Verdict `json:"verdict"`
	// P is the probability of a change beyond the threshold that is none, corrected for the
	// number of findings. It is below Alpha where Verdict is Faster or Slower.
	P float64 `json:"p"`
}

// Change is from old to new of something of which less is better.
type Change struct {
	Old   float64 `json:"old"` // median
	New   float64 `json:"new"`
	Delta float64 `json:"delta"` // of the medians: 0.1 is a tenth more
	P     float64 `json:"p"`     // that there is no change at all (Mann-Whitney U)
	// Floor is the change that is not told from none: the threshold, or what a run differs
	// from itself.
	Floor float64 `json:"floor"`
	// Beyond is the probability that the change is not larger than Floor.
	Beyond float64 `json:"p_beyond"`
}

// Runs compares two runs. threshold is the change that does not matter: 0.05 is 5 %.
func Runs(before, after *result.Report, threshold float64) *Comparison {
	c := &Comparison{Threshold: threshold, Differences: []string{}, Notes: []string{}, Cases: []Case{}, OnlyOld: []string{}, OnlyNew: []string{}}
	c.environments(before, after)
	old := map[string]*result.Case{}
	for i := range before.Cases {
		old[before.Cases[i].Name] = &before.Cases[i]
	}
	for i := range after.Cases {
		now := &after.Cases[i]
		was, ok := old[now.Name]
		if !ok {
			c.OnlyNew = append(c.OnlyNew, now.Name)
			continue
		}
		delete(old, now.Name)
		c.Cases = append(c.Cases, c.pair(was, now))
	}
	for i := range before.Cases {
		if name := before.Cases[i].Name; old[name] != nil {
			c.OnlyOld = append(c.OnlyOld, name)
		}
	}
	c.judge()
	c.means()
	c.resolution(before, after)
	return c
}

// pair compares a case with itself; judge has the verdict.
func (c *Comparison) pair(was, now *result.Case) Case {
	pair := Case{Name: now.Name, Unit: now.Unit, Finding: Finding{Verdict: NoChange, P: 1}}
	switch {
	case !was.Measured():
		pair.Verdict, pair.Reason = Incomparable, "was not measured before: "+was.Missing
		return pair
	case !now.Measured() && now.Failed:
		pair.Verdict, pair.Reason = Fails, now.Missing
		return pair
	case !now.Measured():
		pair.Verdict, pair.Reason = Incomparable, "is not measured now: "+now.Missing
		return pair
	case was.Unit != now.Unit || was.Bytes != now.Bytes:
		pair.Verdict, pair.Reason = Incomparable, "measures something else now"
		return pair
	}
	if found := c.find(was, now, was.Samples, now.Samples); found != nil {
		pair.Finding = *found
	} else {
		pair.Verdict, pair.Reason = Incomparable, "has no limit, and the machine is another"
	}
	if a, b := was.Latency, now.Latency; a != nil && b != nil && !c.disturbed {
		pair.P50 = c.find(was, now, a.P50Samples, b.P50Samples)
		pair.P99 = c.find(was, now, a.P99Samples, b.P99Samples)
	}
	if pair.Verdict == NoChange && was.Allocs != nil && now.Allocs != nil && *was.Allocs < half && *now.Allocs-*was.Allocs >= half {
		pair.Verdict = Allocates
	}
	pair.Allocs, pair.Syscalls = apart(was.Allocs, now.Allocs), apart(was.Syscalls, now.Syscalls)
	return pair
}

// find compares a quantity, given by its samples of all rounds; judge has the verdict. nil: there is
// nothing to compare.
func (c *Comparison) find(was, now *result.Case, before, after []float64) *Finding {
	if len(before) == 0 || len(after) == 0 {
		return nil
	}
	f := &Finding{Verdict: NoChange, P: 1}
	if c.SameMachine {
		f.Value = change(before, after, c.Threshold)
	}
	if was.Limit == now.Limit {
		threshold := c.Threshold
		if f.Value != nil { // which has the threshold; the limit, too, is a little slower in one build than in the other
			threshold /= 2
		}
		if a, b := was.Costs(before), now.Costs(after); a != nil && b != nil {
			f.Cost = change(a, b, threshold)
		}
	}
	if f.Value == nil && f.Cost == nil {
		return nil
	}
	return f
}

// half is a difference of allocations or system calls for each operation that is no chance.
const half = 0.5

func apart(old, now *float64) *[2]float64 {
	if old == nil || now == nil || math.Abs(*now-*old) < half {
		return nil
	}
	return &[2]float64{*old, *now}
}

// change compares samples of which less is better.
func change(old, now []float64, threshold float64) *Change {
	c := &Change{Old: result.Summarize(old).Median, New: result.Summarize(now).Median, P: result.Same(old, now), Beyond: 1}
	c.Floor = max(threshold, drift(old), drift(now))
	if c.Old == c.New {
		return c
	}
	if c.Old == 0 { // of a gauge; anything is infinitely more
		c.Delta, c.Beyond = math.MaxFloat64, c.P
		return c
	}
	c.Delta = c.New/c.Old - 1
	moved := 1 + c.Floor
	if c.Delta < 0 {
		moved = 1 / moved
	}
	if (c.New > c.Old*moved) != (c.Delta > 0) {
		return c
	}
	scaled := make([]float64, len(old))
	for i, v := range old {
		scaled[i] = v * moved
	}
	c.Beyond = result.Same(scaled, now)
	return c
}

// drift is how much the second half of a run differs from the first.
func drift(samples []float64) float64 {
	half := len(samples) / 2
	if half == 0 {
		return 0
	}
	first, second := result.Summarize(samples[:half]).Median, result.Summarize(samples[len(samples)-half:]).Median
	least, most := min(first, second), max(first, second)
	switch {
	case most == 0:
		return 0
	case least == 0:
		return math.MaxFloat64
	}
	return most/least - 1
}
