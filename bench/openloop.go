package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// openLoopLoad is how much of the time an open loop is busy.
const openLoopLoad = 0.5

// openLoop does n operations, each of which becomes due a fixed time after the one before,
// whether that has ended or not, and records the nanoseconds from when each was due to its
// end. An operation that stalls so counts for all those that it holds up, which a loop that
// waits for each would never have begun meanwhile (coordinated omission). The rate is half of
// what a closed loop of n/8 operations reaches just before.
func openLoop(n int, h *hdrhistogram.Histogram, op func() error) error {
	trial := max(n/8, 1)
	begin := time.Now()
	for range trial {
		if err := op(); err != nil {
			return err
		}
	}
	return openLoopAt(time.Duration(float64(time.Since(begin))/openLoopLoad)/time.Duration(trial), n, h, op, time.Now)
}

func openLoopAt(every time.Duration, n int, h *hdrhistogram.Histogram, op func() error, now func() time.Time) error {
	begin := now()
	for i := range n {
		due := begin.Add(time.Duration(i) * every)
		for now().Before(due) { // a timer would be late by more than most operations take
		}
		if err := op(); err != nil {
			return err
		}
		record(h, now().Sub(due))
	}
	return nil
}

// record adds a latency; one beyond the histogram's range counts as the largest in it.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), h.LowestTrackableValue()), h.HighestTrackableValue()))
}
