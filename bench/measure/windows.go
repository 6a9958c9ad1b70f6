package measure

import (
	"math"
	"slices"
	"time"
)

const (
	// window is the time of what a sample is made of: so short that what disturbs, such as another
	// process that gets the CPU, is not in all of them, and so long that the clock does not matter.
	window = time.Millisecond
	// leastWindows are those of an operation that takes long.
	leastWindows = 5
	// mostWindows bounds a sample of an operation that takes no time.
	mostWindows = 1000
	// turnovers is how many times over what is under way at a time is done in a window.
	turnovers = 32
	// corrections are how often the number of operations is found to be too small at a time.
	corrections = 5
	// maxOperations bounds what one window does.
	maxOperations = 1_000_000_000
)

// calibrate finds how many operations take about target. run does that many and says how long
// it took. One operation that takes longer is one.
func calibrate(target time.Duration, run func(n int) (time.Duration, error)) (int, error) {
	for n := 1; ; {
		took, err := run(n)
		if err != nil {
			return 0, err
		}
		if took >= target/2 || n == maxOperations {
			return scale(n, float64(target)/float64(max(took, 1))), nil
		}
		// The first operations are slow, so what is predicted from few is not trusted far.
		n = scale(n, min(1.2*float64(target)/float64(max(took, 1)), 100))
	}
}

// sample measures windows of n operations for about as long as target, and gives the time of a quiet
// one. If windows are much too short, calibration was disturbed: then it measures longer ones, and says of
// how many operations.
func sample(target time.Duration, n int, run func(n int) (time.Duration, error)) (int, time.Duration, error) {
	var took []time.Duration
	var all time.Duration
	for correction := 0; len(took) < leastWindows || all < target && len(took) < mostWindows; {
		t, err := run(n)
		if err != nil {
			return n, 0, err
		}
		took = append(took, t)
		all += t
		if len(took) == leastWindows && correction < corrections && n < maxOperations {
			if best, each := slices.Min(took), windowOf(target); best < each/2 {
				n = scale(n, min(float64(each)/float64(max(best, 1)), 100))
				took, all = took[:0], 0
				correction++
			}
		}
	}
	return n, quiet(took), nil
}

// windowOf is the time of a window of samples that take target.
func windowOf(target time.Duration) time.Duration { return min(window, target/leastWindows) }

// quiet is the tenth percentile of the windows: what disturbs one only adds to it, and a few are
// luckier than an operation is on the whole. What an operation does itself, if only once in a
// thousand times, is in all windows.
func quiet(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/10]
}

func scale(n int, by float64) int {
	return int(min(max(math.Round(float64(n)*by), 1), maxOperations))
}
