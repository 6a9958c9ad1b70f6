package measure

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestCalibrate(t *testing.T) {
	const target = 50 * time.Millisecond
	tests := []struct {
		name     string
		took     func(n int) time.Duration
		from, to int
	}{
		{"a nanosecond", func(n int) time.Duration { return time.Duration(n) }, 49e6, 51e6},
		{"a microsecond after a slow start", func(n int) time.Duration { return 10*time.Millisecond + time.Duration(n)*time.Microsecond }, 30_000, 51_000},
		{"longer than the target", func(n int) time.Duration { return time.Duration(n) * time.Second }, 1, 1},
		{"just the target", func(n int) time.Duration { return time.Duration(n) * target }, 1, 1},
		{"no time at all", func(int) time.Duration { return 0 }, maxOperations, maxOperations},
		{"a clock of 10 ms", func(n int) time.Duration {
			return (time.Duration(n) * time.Microsecond).Truncate(10 * time.Millisecond)
		}, 45_000, 75_000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			calls, did := 0, 0
			n, err := calibrate(target, func(n int) (time.Duration, error) {
				calls++
				did += n
				return test.took(n), nil
			})
			if err != nil || n < test.from || n > test.to {
				t.Errorf("%d operations, %v; want %d to %d", n, err, test.from, test.to)
			}
			if calls > 12 || did > 3*max(n, test.to) {
				t.Errorf("%d runs of %d operations to find %d", calls, did, n)
			}
		})
	}
}

func TestCalibrateFails(t *testing.T) {
	broken := errors.New("broken")
	_, err := calibrate(time.Second, func(int) (time.Duration, error) { return 0, broken })
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestFastest(t *testing.T) {
	const each = 10 * time.Millisecond
	tests := []struct {
		name      string
		n         int
		disturbed []int // measurements that take a hundred times as long
		want      int   // operations
		measured  int
	}{
		{"as it should be", 10_000, nil, 10_000, attempts},
		{"all but one are disturbed", 10_000, []int{0, 1, 2, 4, 5, 6, 7}, 10_000, attempts},
		{"calibration was disturbed", 100, nil, 10_000, 2 * attempts},
		{"calibration was disturbed, and so is this", 100, []int{0, 1, 2, 3, 4, 5, 6, 7}, 100, attempts},
		{"calibration was disturbed badly", 1, nil, 10_000, 3 * attempts},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			measured := 0
			n, took, err := fastest(each, test.n, func(n int) (time.Duration, error) {
				took := time.Duration(n) * time.Microsecond
				if slices.Contains(test.disturbed, measured) {
					took *= 100
				}
				measured++
				return took, nil
			})
			if err != nil || n != test.want || measured != test.measured {
				t.Errorf("%d operations in %v after %d measurements, %v", n, took, measured, err)
			}
			if len(test.disturbed) < attempts && took != time.Duration(n)*time.Microsecond {
				t.Errorf("%d operations took %v", n, took)
			}
		})
	}
	if n, _, err := fastest(each, 1, func(int) (time.Duration, error) { return 0, nil }); n > maxOperations || err != nil {
		t.Error("of something that takes no time", n, err)
	}
	broken := errors.New("broken")
	if _, _, err := fastest(each, 1, func(int) (time.Duration, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}
