package compare

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vfiouser/bench/result"
)

// machine makes runs of a suite of cases that take 100, 200, 300 … ns beside a limit of 90.
type machine struct {
	*rand.Rand
	cases, rounds int
	noise         float64 // of a sample
	drift         float64 // of the machine, from the first round to the last
	speed         float64 // of the machine: times are divided by it
}

func newMachine(seed uint64) *machine {
	return &machine{Rand: rand.New(rand.NewPCG(7, seed)), cases: 100, rounds: 15, noise: 0.02, speed: 1}
}

// run has the times of a case multiplied by what slower says, 1 for those it does not name.
func (m *machine) run(slower map[int]float64) *result.Report {
	r := &result.Report{Schema: result.Schema, Rounds: m.rounds, Environment: result.Environment{CPU: "A", CPUs: 2}}
	for i := range m.cases {
		by := 1.0
		if s, ok := slower[i]; ok {
			by = s
		}
		c := result.Case{Name: fmt.Sprintf("layer/case=%d", i), Unit: result.UnitTime, Limit: "limit"}
		for round := range m.rounds {
			now := (1 + m.drift*float64(round)/float64(m.rounds)) / m.speed
			c.Samples = append(c.Samples, float64(100+100*i)*by*now*m.jitter())
			c.LimitSamples = append(c.LimitSamples, 90*now*m.jitter())
		}
		c.Summarize()
		r.Cases = append(r.Cases, c)
	}
	return r
}

// jitter has a long tail, as that of a machine with other things to do.
func (m *machine) jitter() float64 {
	j := 1 + m.noise*m.ExpFloat64()
	if m.IntN(50) == 0 {
		j *= 2
	}
	return j
}

// changes are the names and verdicts of all cases but those without change.
func changes(c *Comparison) (list []string) {
	for _, k := range c.Cases {
		if k.Verdict != NoChange {
			list = append(list, fmt.Sprintf("%s %s", k.Name, k.Verdict))
		}
	}
	return list
}

func TestSameBuildHasNoChange(t *testing.T) {
	for _, noise := range []float64{0.001, 0.02, 0.1, 0.5} {
		for seed := range uint64(5) {
			m := newMachine(seed)
			m.noise = noise
			if c := Runs(m.run(nil), m.run(nil), 0.05); changes(c) != nil || c.Regressions != 0 {
				t.Errorf("noise %v, seed %d: %v", noise, seed, changes(c))
			}
		}
	}
}

// With no threshold at all, the correction alone keeps false claims to Alpha of the runs.
func TestFamilyOfCasesKeepsToAlpha(t *testing.T) {
	wrong := 0
	const runs = 60
	for seed := range uint64(runs) {
		m := newMachine(1000 + seed)
		m.cases = 40
		before, after := m.run(nil), m.run(nil)
		for _, r := range []*result.Report{before, after} {
			for i := range r.Cases { // so that one test alone decides
				r.Cases[i].Limit, r.Cases[i].LimitSamples = "", nil
				slices.Sort(r.Cases[i].Samples)
				m.Shuffle(m.rounds, func(a, b int) { s := r.Cases[i].Samples; s[a], s[b] = s[b], s[a] })
			}
		}
		if changes(Runs(before, after, 0)) != nil {
			wrong++
		}
	}
	if wrong > 2*Alpha*runs {
		t.Errorf("%d of %d pairs of runs that differ in nothing have changes", wrong, runs)
	}
}

func TestMachineThatDriftsOrChangesSpeedIsNoChange(t *testing.T) {
	for seed := range uint64(5) {
		m := newMachine(seed)
		m.drift = 0.3
		before := m.run(nil)
		m.speed = 0.8
		if c := Runs(before, m.run(nil), 0.05); changes(c) != nil {
			t.Errorf("seed %d: %v", seed, changes(c))
		}
	}
}

func TestSlowedCaseIsFlaggedAloneAndFasterIsNoRegression(t *testing.T) {
	for seed := range uint64(5) {
		m := newMachine(seed)
		before := m.run(nil)
		c := Runs(before, m.run(map[int]float64{3: 1.2, 50: 3, 60: 0.7}), 0.05)
		if want := []string{"layer/case=3 slower", "layer/case=50 slower", "layer/case=60 faster"}; !slices.Equal(changes(c), want) {
			t.Errorf("seed %d: %v", seed, changes(c))
		}
		if c.Regressions != 2 {
			t.Error(c.Regressions, "regressions")
		}
		k := c.Cases[50]
		if k.P >= Alpha || k.Cost.Delta < 1.7 || k.Cost.Delta > 2.3 || k.Value.Delta < 1.7 || k.Value.Delta > 2.3 {
			t.Errorf("%+v %+v %+v", k, k.Value, k.Cost)
		}
	}
}

func TestThreshold(t *testing.T) {
	m := newMachine(1)
	m.noise = 0.005
	before, after := m.run(nil), m.run(map[int]float64{3: 1.2})
	for threshold, want := range map[float64]int{0.05: 1, 0.5: 0} {
		if c := Runs(before, after, threshold); c.Regressions != want {
			t.Errorf("threshold %v: %v", threshold, changes(c))
		}
	}
}

func TestRunThatDiffersFromItselfClaimsNothing(t *testing.T) {
	before := report(result.Case{Name: "a", Unit: result.UnitTime, Samples: []float64{10, 10, 10, 10, 10, 20, 20, 20, 20, 20}})
	after := report(result.Case{Name: "a", Unit: result.UnitTime, Samples: []float64{21, 21, 21, 21, 21, 22, 22, 22, 22, 22}})
	if c := Runs(before, after, 0.05); changes(c) != nil || c.Cases[0].Value.Floor < 0.99 {
		t.Errorf("%v %+v", changes(c), c.Cases[0].Value)
	}
}

func report(cases ...result.Case) *result.Report {
	for i := range cases {
		cases[i].Summarize()
	}
	return &result.Report{Cases: cases}
}

func constant(v float64, n int) []float64 { return slices.Repeat([]float64{v}, n) }

func TestGauges(t *testing.T) {
	gauge := func(v float64) result.Case {
		return result.Case{Name: "memory", Unit: "B", Samples: constant(v, 10)}
	}
	tests := []struct {
		name     string
		old, now float64
		want     Verdict
	}{
		{"the same", 4096, 4096, NoChange},
		{"within the threshold", 4096, 4100, NoChange},
		{"more", 4096, 8192, Slower},
		{"less", 8192, 4096, Faster},
		{"something from nothing", 0, 1, Slower},
		{"nothing from something", 1, 0, Faster},
		{"nothing", 0, 0, NoChange},
	}
	for _, test := range tests {
		if c := Runs(report(gauge(test.old)), report(gauge(test.now)), 0.05); c.Cases[0].Verdict != test.want {
			t.Errorf("%s: %s %+v", test.name, c.Cases[0].Verdict, c.Cases[0].Value)
		}
	}
}

func TestOfDifferentMachinesCostsAloneAreCompared(t *testing.T) {
	m := newMachine(1)
	before := m.run(nil)
	m.speed = 3
	after := m.run(map[int]float64{3: 2})
	after.Environment.CPU = "B"
	after.Cases[7].Limit, after.Cases[7].LimitSamples = "", nil
	c := Runs(before, after, 0.05)
	if c.SameMachine || len(c.Differences) != 1 || !strings.Contains(c.Differences[0], "processor: A before, B now") {
		t.Error(c.SameMachine, c.Differences)
	}
	if want := []string{"layer/case=3 slower", "layer/case=7 not comparable"}; !slices.Equal(changes(c), want) {
		t.Error(changes(c))
	}
	if c.Cases[0].Value != nil || c.Time != nil || c.Cost == nil {
		t.Error("times are compared")
	}
}

func TestAnotherBuildIsTheSameMachine(t *testing.T) {
	m := newMachine(1)
	before, after := m.run(nil), m.run(nil)
	after.Environment.Commit, after.Environment.Modified, after.Environment.Go = "b", true, "go2"
	if c := Runs(before, after, 0.05); !c.SameMachine || len(c.Differences) != 2 {
		t.Error(c.SameMachine, c.Differences)
	}
}

func TestCasesThatComeAndGoAndFail(t *testing.T) {
	some := constant(1, 6)
	c := Runs(
		report(result.Case{Name: "gone", Unit: "B", Samples: some}, result.Case{Name: "fails", Unit: "B", Samples: some}, result.Case{Name: "lacks", Unit: "B", Samples: some},
			result.Case{Name: "lacked", Missing: "no server"}, result.Case{Name: "other", Unit: "B", Samples: some}),
		report(result.Case{Name: "fails", Missing: "broken", Failed: true}, result.Case{Name: "lacks", Missing: "no server"},
			result.Case{Name: "lacked", Unit: "B", Samples: some}, result.Case{Name: "other", Unit: "s", Samples: some}, result.Case{Name: "new", Unit: "B", Samples: some}), 0.05)
	if want := []string{"fails fails", "lacks not comparable", "lacked not comparable", "other not comparable"}; !slices.Equal(changes(c), want) {
		t.Error(changes(c))
	}
	if !slices.Equal(c.OnlyOld, []string{"gone"}) || !slices.Equal(c.OnlyNew, []string{"new"}) || c.Regressions != 1 {
		t.Error(c.OnlyOld, c.OnlyNew, c.Regressions)
	}
}

func TestTooFewRoundsAreSaid(t *testing.T) {
	m := newMachine(1)
	m.rounds = 6
	c := Runs(m.run(nil), m.run(map[int]float64{3: 2}), 0.05)
	if changes(c) != nil || !strings.Contains(strings.Join(c.Notes, " "), "too few rounds") {
		t.Error(changes(c), c.Notes)
	}
	m.cases = 10
	c = Runs(m.run(nil), m.run(map[int]float64{3: 2}), 0.05)
	if len(changes(c)) != 1 || strings.Contains(strings.Join(c.Notes, " "), "too few rounds") {
		t.Error(changes(c), c.Notes)
	}
}

func TestAllocationsAndSystemCallsAreTold(t *testing.T) {
	value := func(allocs, syscalls float64) result.Case {
		return result.Case{Name: "a", Unit: result.UnitTime, Samples: constant(1, 6), Allocs: &allocs, Syscalls: &syscalls}
	}
	k := Runs(report(value(0, 2)), report(value(1, 2.1)), 0.05).Cases[0]
	if k.Allocs == nil || *k.Allocs != [2]float64{0, 1} || k.Syscalls != nil {
		t.Error(k.Allocs, k.Syscalls)
	}
	for _, test := range []struct {
		name     string
		old, now float64
		want     Verdict
	}{
		{"none, and one for each", 0, 1, Allocates},
		{"none, and one now and then", 0, 0.2, NoChange},
		{"some, and more", 1, 5, NoChange},
		{"some, and none", 1, 0, NoChange},
	} {
		c := Runs(report(value(test.old, 2)), report(value(test.now, 2)), 0.05)
		if c.Cases[0].Verdict != test.want || (c.Regressions == 1) != (test.want == Allocates) {
			t.Errorf("%s: %s, %d regressions", test.name, c.Cases[0].Verdict, c.Regressions)
		}
	}
}

// The limit of another build is a little slower as well, for where its code lies; a machine that is slower
// slows both alike.
func TestOfOneMachineTheTimeDecides(t *testing.T) {
	tests := []struct {
		name        string
		ours, limit float64 // what they take, of before
		want        Verdict
	}{
		{"slower, the limit a little", 1.1, 1.045, Slower},
		{"slower, the limit as much", 1.1, 1.1, NoChange},
		{"slower, the limit nearly as much", 1.1, 1.085, NoChange},
		{"the same, a quicker limit", 1, 0.8, NoChange},
		{"faster, the limit a little", 0.9, 0.96, Faster},
		{"faster, a slower limit", 0.9, 1.05, Faster},
		{"slower by less than the threshold", 1.04, 1, NoChange},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(1)
			m.cases, m.noise = 10, 0.002
			before, after := m.run(nil), m.run(map[int]float64{3: test.ours})
			for i := range after.Cases[3].LimitSamples {
				after.Cases[3].LimitSamples[i] *= test.limit
			}
			if c := Runs(before, after, 0.05); c.Cases[3].Verdict != test.want {
				t.Errorf("%s: %+v, %+v", c.Cases[3].Verdict, c.Cases[3].Value, c.Cases[3].Cost)
			}
		})
	}
}

// Whatever is read can be compared and printed.
func TestExtremes(t *testing.T) {
	var values []result.Case
	for _, samples := range [][]float64{{1e-9}, {1e18}, constant(1e-9, 20), constant(1e18, 20)} {
		values = append(values, result.Case{Name: "a", Unit: result.UnitTime, Limit: "l", Samples: samples, LimitSamples: slices.Repeat([]float64{1e18}, len(samples))},
			result.Case{Name: "a", Unit: result.UnitTime, Limit: "l", Samples: samples, LimitSamples: slices.Repeat([]float64{1e-9}, len(samples))})
	}
	for _, a := range values {
		for _, b := range values {
			if _, err := json.Marshal(Runs(report(a), report(b), 0)); err != nil {
				t.Error(err)
			}
		}
	}
}
