package measure

import (
	"errors"
	"testing"
	"time"

	"vfiouser/bench"
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

func TestSample(t *testing.T) {
	const target = 50 * time.Millisecond // fifty windows
	all := func(n int) func(int) bool { return func(i int) bool { return i < n } }
	tests := []struct {
		name      string
		n         int
		each      time.Duration         // of an operation
		disturbed func(window int) bool // those that take ten times as long
		lucky     func(window int) bool // those that take half
		want      int                   // operations
		windows   [2]int                // from, to
	}{
		{"as it should be", 1000, time.Microsecond, all(0), all(0), 1000, [2]int{50, 50}},
		{"the first are disturbed", 1000, time.Microsecond, all(3), all(0), 1000, [2]int{20, 30}},
		{"most are disturbed", 1000, time.Microsecond, func(i int) bool { return i%4 != 0 }, all(0), 1000, [2]int{5, 10}},
		{"one is lucky", 1000, time.Microsecond, all(0), func(i int) bool { return i == 7 }, 1000, [2]int{50, 52}},
		{"calibration was disturbed", 100, time.Microsecond, all(0), all(0), 1000, [2]int{55, 55}},
		{"calibration was disturbed badly", 1, time.Microsecond, all(0), all(0), 1000, [2]int{60, 60}},
		{"longer than all windows", 1, time.Second, all(0), all(0), 1, [2]int{leastWindows, leastWindows}},
		{"no time at all", maxOperations, 0, all(0), all(0), maxOperations, [2]int{mostWindows, mostWindows}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			windows := 0
			n, took, err := sample(target, test.n, func(n int) (time.Duration, error) {
				took := time.Duration(n) * test.each
				switch {
				case test.disturbed(windows):
					took *= 10
				case test.lucky(windows):
					took /= 2
				}
				windows++
				return took, nil
			})
			if err != nil || n != test.want || windows < test.windows[0] || windows > test.windows[1] {
				t.Errorf("%d operations after %d windows, %v", n, windows, err)
			}
			if took != time.Duration(n)*test.each {
				t.Errorf("%d operations took %v", n, took)
			}
		})
	}
	broken := errors.New("broken")
	if _, _, err := sample(target, 1, func(int) (time.Duration, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// The first and the last operations of a window find less company than those between them.
func TestWindowsAreLongWhereMuchIsUnderWay(t *testing.T) {
	const underWay = 64
	var least int
	runAll(t, []bench.Case{{Name: "a", Setup: func(*bench.Env) (bench.Subject, error) {
		timed := false
		return bench.Subject{UnderWay: underWay, Run: func(n int) error {
			if timed = timed || n >= underWay; timed && (least == 0 || n < least) {
				least = n
			}
			time.Sleep(time.Duration(n) * time.Microsecond)
			return nil
		}}, nil
	}}}, nil)
	if least < turnovers*underWay {
		t.Errorf("a window of %d operations, %d under way", least, underWay)
	}
}
