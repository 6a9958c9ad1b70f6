package result

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

const (
	confidence = 0.95
	// MinRounds is how many samples a median's interval of that confidence takes.
	MinRounds = 6
	// wide is an interval, over its median, that is pointed out.
	wide = 0.1
)

// Summarize gives the median of samples and its interval, which rests on their order alone.
// With fewer than MinRounds the interval is all of them and less sure.
func Summarize(samples []float64) Summary {
	if len(samples) == 0 {
		return Summary{}
	}
	s := benchmath.AssumeNothing.Summary(sample(samples), confidence)
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		// The median lies outside when all samples are on one side of it.
		return Summary{s.Center, slices.Min(samples), slices.Max(samples), 1 - math.Pow(0.5, float64(len(samples)-1))}
	}
	return Summary{s.Center, s.Lo, s.Hi, s.Confidence}
}

// Same is the probability that two sets of samples, if they came from the same distribution,
// would differ as much as these (Mann-Whitney U test, two-sided).
func Same(a, b []float64) float64 {
	if len(a) == 0 || len(b) == 0 {
		return 1
	}
	return benchmath.AssumeNothing.Compare(sample(a), sample(b)).P
}

// sample copies: benchmath sorts what it is given.
func sample(values []float64) *benchmath.Sample {
	return benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
}

// Width is that of the interval over the median.
func (s Summary) Width() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.High - s.Low) / s.Median
}

// Ratios are the limit's samples over ours, round by round, so that what slows both cancels.
// nil: there is no limit.
func (c *Case) Ratios() []float64 { return c.ratios(c.Samples) }

// Costs are times of the rounds over those of the limit, the inverse of ratios. nil: there is no limit.
func (c *Case) Costs(times []float64) []float64 {
	list := c.ratios(times)
	for i := range list {
		list[i] = 1 / list[i]
	}
	return list
}

func (c *Case) ratios(times []float64) []float64 {
	if len(c.LimitSamples) == 0 || len(c.LimitSamples) != len(times) {
		return nil
	}
	ratios := make([]float64, len(times))
	for i, ours := range times {
		ratios[i] = c.LimitSamples[i] / ours
	}
	return ratios
}

// Summarize fills in what follows from the samples.
func (c *Case) Summarize() {
	c.Value, c.LimitValue, c.Ratio = Summarize(c.Samples), nil, nil
	c.Noisy = c.Value.Width() > wide
	if ratios := c.Ratios(); ratios != nil {
		limit, ratio := Summarize(c.LimitSamples), Summarize(ratios)
		c.LimitValue, c.Ratio = &limit, &ratio
		c.Noisy = c.Noisy || ratio.Width() > wide
	}
	if l := c.Latency; l != nil && len(l.P50Samples) > 0 {
		l.Spread = Summarize(l.P50Samples)
	}
}

// Measured says whether there are samples.
func (c *Case) Measured() bool { return len(c.Samples) > 0 }

// Timed says whether it is an operation, with a time, and no gauge.
func (c *Case) Timed() bool { return c.Unit == UnitTime }

// GeometricMean of what is positive. 0: there is nothing.
func GeometricMean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	if len(values) == 0 {
		return 0
	}
	return math.Exp(sum / float64(len(values)))
}
