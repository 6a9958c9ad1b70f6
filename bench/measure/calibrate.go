package measure

import (
	"math"
	"time"
)

// maxOperations bounds what one measurement does.
const maxOperations = 1_000_000_000

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

const (
	// attempts are the measurements next to each other of which the fastest is the sample: what
	// disturbs one, a thread of another process that gets the CPU, only adds to it. What an
	// operation does itself, be it once in a thousand times, is in all of them. They are so many
	// that each is shorter than the time for which a busy machine leaves a thread its CPU.
	attempts = 8
	// corrections are how often the number of operations is found to be too small at a time.
	corrections = 5
)

// fastest measures n operations, which should take each. If they take less than half of that,
// calibration was disturbed: then it measures more, and says how many.
func fastest(each time.Duration, n int, run func(n int) (time.Duration, error)) (int, time.Duration, error) {
	for correction := 0; ; correction++ {
		best := time.Duration(math.MaxInt64)
		for range attempts {
			took, err := run(n)
			if err != nil {
				return n, 0, err
			}
			best = min(best, took)
		}
		if best >= each/2 || n == maxOperations || correction == corrections {
			return n, best, nil
		}
		n = scale(n, min(float64(each)/float64(max(best, 1)), 100))
	}
}

func scale(n int, by float64) int {
	return int(min(max(float64(n)*by, 1), maxOperations))
}
