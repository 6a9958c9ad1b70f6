package measure

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// script is a distance that is known: of each look in turn, and then the last one for ever.
func script(looked ...time.Duration) (d *distance, pauses *int) {
	pauses = new(int)
	d = &distance{
		measure: func() time.Duration {
			now := looked[0]
			if len(looked) > 1 {
				looked = looked[1:]
			}
			return now
		},
		sleep: func(context.Context, time.Duration) { *pauses++ },
	}
	return d, pauses
}

func TestSteady(t *testing.T) {
	tests := []struct {
		name   string
		looked []time.Duration // the first is the least
		taken  int             // measurements; the last one counts
		pauses int
		apart  int
	}{
		{"near all the time", []time.Duration{80}, 1, 0, 0},
		{"unknown", []time.Duration{0}, 1, 0, 0},
		{"a neighbour's is near", []time.Duration{40, 80, 110}, 1, 0, 0},
		{"apart before", []time.Duration{80, 400, 400, 80}, 1, 2, 0},
		{"apart after", []time.Duration{80, 80, 400, 80}, 2, 0, 0},
		{"apart after, and for a while", []time.Duration{80, 80, 400, 400, 400, 90}, 2, 2, 0},
		{"apart for good", []time.Duration{80, 400}, 1, looks, 1},
		{"nearer than ever", []time.Duration{80, 80, 90, 20, 80, 20}, 1, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, pauses := script(test.looked...)
			d.look()
			taken := 0
			var kept []int
			err := steady(context.Background(), d, func() (int, error) { taken++; return taken, nil }, func(i int) { kept = append(kept, i) })
			if err != nil || taken != test.taken || !slices.Equal(kept, []int{taken}) {
				t.Errorf("%d taken, kept %v, %v", taken, kept, err)
			}
			if *pauses != test.pauses || d.apart != test.apart || len(d.seen) != 1 {
				t.Errorf("%d pauses, %d apart, seen %v", *pauses, d.apart, d.seen)
			}
		})
	}
}

// Where CPUs are hardly ever near, as many waits as measurements are enough.
func TestWaitsAreBounded(t *testing.T) {
	d, pauses := script(80, 400)
	d.look()
	const measurements = 1000
	taken := 0
	for range measurements {
		if err := steady(context.Background(), d, func() (int, error) { taken++; return 0, nil }, func(int) {}); err != nil {
			t.Fatal(err)
		}
	}
	if spent := *pauses + taken - measurements; spent > measurements+looks || d.apart != measurements {
		t.Errorf("%d pauses and %d measurements for %d that count, %d apart", *pauses, taken, measurements, d.apart)
	}
}

func TestSteadyEnds(t *testing.T) {
	d, _ := script(80, 400)
	d.look()
	broken := errors.New("broken")
	err := steady(context.Background(), d, func() (int, error) { return 0, broken }, func(int) { t.Error("kept") })
	if !errors.Is(err, broken) || len(d.seen) != 0 {
		t.Error(err, d.seen)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	taken := 0
	if err := steady(ctx, d, func() (int, error) { taken++; return 0, nil }, func(int) {}); err != nil || taken != 1 {
		t.Error("with a context that has ended:", taken, err)
	}
}

func TestNewDistanceFindsTheLeast(t *testing.T) {
	if d := newDistance(context.Background(), -1, -1); d.look() != 0 || !d.near(0) {
		t.Errorf("%+v", d)
	}
	d, pauses := script(400, 400, 80, 400)
	d.find(context.Background())
	if d.least != 80 || *pauses != firstLooks {
		t.Errorf("%v after %d pauses", d.least, *pauses)
	}
}
