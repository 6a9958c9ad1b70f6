package measure

import "time"

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

func scale(n int, by float64) int {
	return int(min(max(float64(n)*by, 1), maxOperations))
}
