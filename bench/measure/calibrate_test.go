package measure

import (
	"errors"
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
