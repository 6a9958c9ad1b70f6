package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"vfiouser/bench/result"
)

// judge gives the verdicts. That of the k-th most certain of m changes is claimed if its
// probability of being none is at most k/m of Alpha, or that of a less certain one is
// (Benjamini and Hochberg): of runs that differ in nothing, Alpha of the pairs have a claim at
// all, and of many claims Alpha are wrong.
func (c *Comparison) judge() {
	var tested []*Case
	for i := range c.Cases {
		if k := &c.Cases[i]; k.Verdict == NoChange {
			k.P = k.claim()
			tested = append(tested, k)
		}
	}
	slices.SortStableFunc(tested, func(a, b *Case) int { return cmp.Compare(a.P, b.P) })
	least := 1.0
	for i, k := range slices.Backward(tested) {
		least = min(least, k.P*float64(len(tested))/float64(i+1))
		if k.P = least; k.P < Alpha {
			k.Verdict = Faster
			if k.main().Delta > 0 {
				k.Verdict = Slower
			}
		}
	}
	for i := range c.Cases {
		if v := c.Cases[i].Verdict; v == Slower || v == Fails {
			c.Regressions++
		}
	}
}

// main is the change that the headline is about.
func (k *Case) main() *Change {
	if k.Cost != nil {
		return k.Cost
	}
	return k.Value
}

// claim is the probability that a change is claimed wrongly. That takes both to have changed,
// so it is that of the less certain.
func (k *Case) claim() float64 {
	if k.Value == nil || k.Cost == nil {
		return k.main().Beyond
	}
	if (k.Value.Delta > 0) != (k.Cost.Delta > 0) {
		return 1
	}
	return max(k.Value.Beyond, k.Cost.Beyond)
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
	tested, small := 0, 0
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
		if v := c.Cases[i].Verdict; v != Incomparable && v != Fails {
			tested++
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
			"more come of vfu bench --rounds, or fewer cases of --only.", small, tested))
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
