package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"vfiouser/bench/result"
)

// findings are all those of a case that can be judged.
func (k *Case) findings() (list []*Finding) {
	for _, f := range []*Finding{&k.Finding, k.P50, k.P99} {
		if f != nil && (f.Value != nil || f.Cost != nil) {
			list = append(list, f)
		}
	}
	return list
}

// Slower says whether anything of the case is.
func (k *Case) Slower() bool { return k.has(Slower) }

// Faster says whether anything of the case is, and nothing is slower.
func (k *Case) Faster() bool { return k.has(Faster) && !k.has(Slower) }

func (k *Case) has(v Verdict) bool {
	return slices.ContainsFunc(k.findings(), func(f *Finding) bool { return f.Verdict == v })
}

// judge gives the verdicts. That of the k-th most certain of m changes is claimed if its
// probability of being none is at most k/m of Alpha, or that of a less certain one is
// (Benjamini and Hochberg): of runs that differ in nothing, Alpha of the pairs have a claim at
// all, and of many claims Alpha are wrong.
func (c *Comparison) judge() {
	var tested []*Finding
	for i := range c.Cases {
		tested = append(tested, c.Cases[i].findings()...)
	}
	for _, f := range tested {
		f.P = f.claim()
	}
	slices.SortStableFunc(tested, func(a, b *Finding) int { return cmp.Compare(a.P, b.P) })
	least := 1.0
	for i, f := range slices.Backward(tested) {
		least = min(least, f.P*float64(len(tested))/float64(i+1))
		if f.P = least; f.P < Alpha {
			f.Verdict = Faster
			if f.main().Delta > 0 {
				f.Verdict = Slower
			}
		}
	}
	for i := range c.Cases {
		if k := &c.Cases[i]; k.Slower() || k.Verdict == Fails || k.Verdict == Allocates {
			c.Regressions++
		}
	}
}

// main is the change that the headline is about.
func (f *Finding) main() *Change {
	if f.Cost != nil {
		return f.Cost
	}
	return f.Value
}

// claim is the probability that a change is claimed wrongly. That takes both to have changed,
// so it is that of the less certain.
func (f *Finding) claim() float64 {
	if f.Value == nil || f.Cost == nil {
		return f.main().Beyond
	}
	if (f.Value.Delta > 0) != (f.Cost.Delta > 0) {
		return 1
	}
	return max(f.Value.Beyond, f.Cost.Beyond)
}

// means fills in the geometric means.
func (c *Comparison) means() {
	mean := func(of func(*Case) *Change) *float64 {
		var list []float64
		for i := range c.Cases {
			k := &c.Cases[i]
			if v := of(k); v != nil && k.Unit == result.UnitTime {
				list = append(list, v.New/v.Old)
			}
		}
		if len(list) == 0 {
			return nil
		}
		m := result.GeometricMean(list) - 1
		return &m
	}
	c.Time = mean(func(k *Case) *Change { return k.Value })
	c.Cost = mean(func(k *Case) *Change { return k.Cost })
}

// resolution says so if the rounds are too few for anything to be significant.
func (c *Comparison) resolution(before, after *result.Report) {
	tested, judged, small := 0, 0, 0
	rounds := map[string]int{}
	for _, r := range []*result.Report{before, after} {
		for i := range r.Cases {
			k := &r.Cases[i]
			if n, ok := rounds[k.Name]; !ok || len(k.Samples) < n {
				rounds[k.Name] = len(k.Samples)
			}
		}
	}
	for i := range c.Cases {
		if n := len(c.Cases[i].findings()); n > 0 {
			tested += n
			judged++
		}
	}
	for i := range c.Cases {
		k := &c.Cases[i]
		if n := rounds[k.Name]; k.Verdict == NoChange && leastP(n)*float64(tested) >= Alpha {
			small++
		}
	}
	if small > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%d of %d cases have too few rounds for any change to be significant among so many: "+
			"more come of vfu bench --rounds, or fewer cases of --only.", small, judged))
	}
}

// leastP is the least probability that the U test gives for n samples on both sides: two
// orders of all are as extreme.
func leastP(n int) float64 {
	orders := 1.0
	for i := range n {
		orders *= float64(n+i+1) / float64(i+1)
		if math.IsInf(orders, 1) {
			return 0
		}
	}
	return min(1, 2/orders)
}
