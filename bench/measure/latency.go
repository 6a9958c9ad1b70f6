package measure

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vfiouser/bench/result"
)

// What histograms tell apart: nanoseconds up to a minute, to a thousandth.
const (
	longest = int64(time.Minute)
	digits  = 3
)

// latencies are those of a case over all rounds.
type latencies struct {
	n        int // operations of one measurement; 0: not known yet
	all      *hdrhistogram.Histogram
	p50, p99 []float64 // of the rounds
}

// observe measures a round, which takes about target. nil: run is.
func (l *latencies) observe(run func(n int, h *hdrhistogram.Histogram) error, target time.Duration) (*hdrhistogram.Histogram, error) {
	if run == nil {
		return nil, nil
	}
	h := hdrhistogram.New(1, longest, digits)
	if l.n == 0 {
		n, err := calibrate(target, func(n int) (time.Duration, error) {
			begin := time.Now()
			err := run(n, h)
			return time.Since(begin), err
		})
		if err != nil {
			return nil, err
		}
		l.n = n
		h.Reset()
	}
	return h, run(l.n, h)
}

// add keeps those of a round.
func (l *latencies) add(h *hdrhistogram.Histogram) {
	if l.all == nil {
		l.all = hdrhistogram.New(1, longest, digits)
	}
	l.all.Merge(h)
	l.p50 = append(l.p50, float64(h.ValueAtQuantile(50)))
	l.p99 = append(l.p99, float64(h.ValueAtQuantile(99)))
}

// result is nil where nothing was recorded.
func (l *latencies) result() *result.Latency {
	if l.all == nil || l.all.TotalCount() == 0 {
		return nil
	}
	at := func(percent float64) float64 { return float64(l.all.ValueAtQuantile(percent)) }
	return &result.Latency{
		Count: l.all.TotalCount(), Mean: l.all.Mean(), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9),
		Max: float64(l.all.Max()), P50Samples: l.p50, P99Samples: l.p99,
	}
}
