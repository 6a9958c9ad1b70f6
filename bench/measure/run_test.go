package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vfiouser/bench"
	"vfiouser/bench/result"
)

const (
	rounds = result.MinRounds
	target = 200 * time.Microsecond
)

// spins takes some time for each operation.
func spins(each time.Duration) func(*bench.Env) (bench.Subject, error) {
	return func(*bench.Env) (bench.Subject, error) {
		return bench.Subject{Run: func(n int) error {
			for end := time.Now().Add(time.Duration(n) * each); time.Now().Before(end); {
			}
			return nil
		}}, nil
	}
}

func runAll(t *testing.T, cases []bench.Case, limits []bench.Limit) *result.Report {
	t.Helper()
	r, err := Run(context.Background(), cases, limits, Options{Mode: "test", Rounds: rounds, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) != len(cases) || r.Rounds != rounds || r.Mode != "test" || r.Seconds <= 0 {
		t.Fatalf("%+v", r)
	}
	var file strings.Builder
	if err := r.Write(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := result.Read(strings.NewReader(file.String())); err != nil {
		t.Error("what a run makes is not read:", err)
	}
	return r
}

func TestEveryRoundMeasuresTheCaseAndItsLimit(t *testing.T) {
	r := runAll(t, []bench.Case{{Name: "a/slow", Limit: "floor", Bytes: 7, Setup: spins(2 * time.Microsecond)}, {Name: "a/alone", Setup: spins(time.Microsecond)}},
		[]bench.Limit{{Name: "floor", Setup: spins(time.Microsecond)}})
	slow, alone := r.Cases[0], r.Cases[1]
	if len(slow.Samples) != rounds || len(slow.LimitSamples) != rounds || slow.Ratio == nil || slow.LimitValue == nil ||
		slow.Bytes != 7 || slow.Unit != result.UnitTime || slow.Operations == 0 {
		t.Errorf("%+v", slow)
	}
	if least := slices.Min(slow.Samples); least < 2000 {
		t.Errorf("%v ns for two microseconds", least)
	}
	if slow.Allocs == nil || *slow.Allocs > 0.5 {
		t.Error("allocations are not counted, or are there", slow.Allocs)
	}
	if len(alone.Samples) != rounds || alone.LimitSamples != nil || alone.Ratio != nil {
		t.Errorf("%+v", alone)
	}
}

func TestSetupIsAnewAndTornDown(t *testing.T) {
	set, down, alive := 0, 0, 0
	var dirs []string
	setup := func(env *bench.Env) (bench.Subject, error) {
		set++
		alive++
		dirs = append(dirs, env.Dir)
		env.Cleanup(func() { down++; alive-- })
		if alive > 1 {
			t.Error("two are set up at a time")
		}
		return bench.Subject{Run: func(int) error { return nil }}, nil
	}
	runAll(t, []bench.Case{{Name: "a", Limit: "l", Setup: setup}}, []bench.Limit{{Name: "l", Setup: setup}})
	if set != 2*rounds || down != set {
		t.Errorf("%d set up, %d taken down in %d rounds", set, down, rounds)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Error(dir, "is still there")
		}
	}
}

func TestLimitComesFirstInEveryOtherRound(t *testing.T) {
	var order []string
	setup := func(name string) func(*bench.Env) (bench.Subject, error) {
		return func(*bench.Env) (bench.Subject, error) {
			order = append(order, name)
			return bench.Subject{Run: func(int) error { return nil }}, nil
		}
	}
	runAll(t, []bench.Case{{Name: "case", Limit: "limit", Setup: setup("case")}}, []bench.Limit{{Name: "limit", Setup: setup("limit")}})
	if want := []string{"limit", "case", "case", "limit"}; !slices.Equal(order[:4], want) {
		t.Error(order)
	}
}

func TestGauge(t *testing.T) {
	r := runAll(t, []bench.Case{{Name: "idle/memory", Setup: func(*bench.Env) (bench.Subject, error) {
		return bench.Subject{Gauge: func() (float64, string, error) { return 4096, "B", nil }}, nil
	}}}, nil)
	if c := r.Cases[0]; c.Unit != "B" || c.Value.Median != 4096 || c.Allocs != nil || c.Noisy {
		t.Errorf("%+v", c)
	}
}

func TestLatency(t *testing.T) {
	r := runAll(t, []bench.Case{{Name: "a", Setup: func(*bench.Env) (bench.Subject, error) {
		return bench.Subject{
			Run: func(int) error { return nil },
			Latency: func(n int, h *hdrhistogram.Histogram) error {
				for i := range n {
					if err := h.RecordValue(int64(100 + i%2*900)); err != nil {
						return err
					}
				}
				return nil
			},
		}, nil
	}}}, nil)
	l := r.Cases[0].Latency
	if l == nil || l.P50 != 100 || l.P99 < 990 || l.P99 > 1010 || l.Max < 990 || l.Count < rounds {
		t.Errorf("%+v", l)
	}
	if len(l.P50Samples) != rounds || len(l.P99Samples) != rounds || l.Spread.Median != 100 || l.P99Samples[0] < 990 {
		t.Errorf("of the rounds: %+v", l)
	}
}

func TestFailuresStayWithTheirCase(t *testing.T) {
	broken := errors.New("broken\x1b[31m")
	fails := func(err error) func(*bench.Env) (bench.Subject, error) {
		return func(*bench.Env) (bench.Subject, error) { return bench.Subject{}, err }
	}
	r := runAll(t, []bench.Case{
		{Name: "setup", Setup: fails(broken)},
		{Name: "lacks", Setup: fails(fmt.Errorf("%w: no C compiler", bench.ErrUnavailable))},
		{Name: "neither", Setup: fails(nil)},
		{Name: "run", Setup: func(*bench.Env) (bench.Subject, error) {
			return bench.Subject{Run: func(int) error { return broken }}, nil
		}},
		{Name: "limit", Limit: "broken", Setup: spins(time.Microsecond)},
		{Name: "well", Setup: spins(time.Microsecond)},
	}, []bench.Limit{{Name: "broken", Setup: fails(broken)}})
	for _, c := range r.Cases {
		well, lacks := c.Name == "well", c.Name == "lacks"
		if c.Measured() != well || c.Failed == (well || lacks) || (c.Missing == "") != well || strings.Contains(c.Missing, "\x1b") {
			t.Errorf("%+v", c)
		}
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	good := []bench.Case{{Name: "a", Setup: spins(1)}}
	for name, test := range map[string]struct {
		cases []bench.Case
		o     Options
	}{
		"no cases":       {nil, Options{Rounds: rounds, Target: target}},
		"too few rounds": {good, Options{Rounds: rounds - 1, Target: target}},
		"no time":        {good, Options{Rounds: rounds}},
		"unknown limit":  {[]bench.Case{{Name: "a", Limit: "x", Setup: spins(1)}}, Options{Rounds: rounds, Target: target}},
	} {
		if _, err := Run(context.Background(), test.cases, nil, test.o); !errors.Is(err, ErrSetup) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	measured := 0
	_, err := Run(ctx, []bench.Case{{Name: "a", Setup: spins(time.Microsecond)}}, nil, Options{
		Rounds: rounds, Target: target,
		Progress: func(done, total int, name string) {
			if measured++; measured == 2 {
				cancel()
			}
			if done != measured-1 || total != rounds || name != "a" {
				t.Error(done, total, name)
			}
		},
	})
	if !errors.Is(err, context.Canceled) || measured != 2 {
		t.Error(measured, err)
	}
}
