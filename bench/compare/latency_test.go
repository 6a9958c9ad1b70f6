package compare

import (
	"slices"
	"strings"
	"testing"

	"vfiouser/bench/result"
)

// A case may take as long as before on the whole, and let single operations wait.
func TestLatencies(t *testing.T) {
	withLatency := func(m *machine, p50, p99 float64) *result.Report {
		r := m.run(nil)
		for i := range r.Cases {
			c := &r.Cases[i]
			c.Latency = &result.Latency{}
			by50, by99 := 1.0, 1.0
			if i == 3 {
				by50, by99 = p50, p99
			}
			for _, v := range c.Samples {
				c.Latency.P50Samples = append(c.Latency.P50Samples, 1.2*v*by50*m.jitter())
				c.Latency.P99Samples = append(c.Latency.P99Samples, 5*v*by99*m.jitter())
			}
		}
		return r
	}
	tests := []struct {
		name      string
		p50, p99  float64
		speed     float64 // of the machine, the second time
		want      [2]Verdict
		regresses int
	}{
		{"the same", 1, 1, 1, [2]Verdict{NoChange, NoChange}, 0},
		{"a machine of another speed", 1, 1, 0.7, [2]Verdict{NoChange, NoChange}, 0},
		{"the tail", 1, 1.5, 1, [2]Verdict{NoChange, Slower}, 1},
		{"the median", 1.5, 1, 1, [2]Verdict{Slower, NoChange}, 1},
		{"both, one case", 1.5, 1.5, 1, [2]Verdict{Slower, Slower}, 1},
		{"better", 0.5, 0.5, 1, [2]Verdict{Faster, Faster}, 0},
		{"better and worse", 0.5, 2, 1, [2]Verdict{Faster, Slower}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(1)
			m.cases = 20
			before := withLatency(m, 1, 1)
			m.speed = test.speed
			c := Runs(before, withLatency(m, test.p50, test.p99), 0.05)
			for i, k := range c.Cases {
				want := [2]Verdict{NoChange, NoChange}
				if i == 3 {
					want = test.want
				}
				if k.Verdict != NoChange || k.P50.Verdict != want[0] || k.P99.Verdict != want[1] {
					t.Errorf("%s: %s, p50 %s, p99 %s; want %v", k.Name, k.Verdict, k.P50.Verdict, k.P99.Verdict, want)
				}
			}
			if c.Regressions != test.regresses {
				t.Error(c.Regressions, "regressions")
			}
		})
	}
}

// What single operations wait for is the machine then.
func TestLatenciesOfADisturbedRun(t *testing.T) {
	for name, disturb := range map[string]func(*result.Noise){
		"by another process": func(n *result.Noise) { n.SpinSpread = 0.5 },
		"by the hypervisor":  func(n *result.Noise) { n.Stolen = 0.1 },
		"by CPUs that move":  func(n *result.Noise) { n.Apart = 0.2 },
	} {
		for _, first := range []bool{false, true} {
			m := newMachine(1)
			before, after := m.run(nil), m.run(nil)
			for i, r := range []*result.Report{before, after} {
				c := &r.Cases[0]
				c.Latency = &result.Latency{P50Samples: c.Samples, P99Samples: slices.Clone(c.Samples)}
				for k := range c.Samples {
					c.Latency.P99Samples[k] *= float64(1 + 9*i)
				}
			}
			if c := Runs(before, after, 0.05); c.Regressions != 1 {
				t.Fatal("a tail of ten times the length is no regression of a quiet machine")
			}
			disturbed := after
			if first {
				disturbed = before
			}
			disturb(&disturbed.Noise)
			c := Runs(before, after, 0.05)
			if c.Regressions != 0 || c.Cases[0].P99 != nil || !strings.Contains(strings.Join(c.Notes, " "), "disturbed") {
				t.Errorf("%s: %d regressions, %v", name, c.Regressions, c.Notes)
			}
		}
	}
}

// Runs of before percentiles of rounds were kept have nothing to compare.
func TestLatencyOfOneRunAlone(t *testing.T) {
	m := newMachine(1)
	before, after := m.run(nil), m.run(nil)
	after.Cases[0].Latency = &result.Latency{P50Samples: after.Cases[0].Samples, P99Samples: after.Cases[0].Samples}
	before.Cases[0].Latency = &result.Latency{P50: 1}
	if c := Runs(before, after, 0.05); c.Cases[0].P50 != nil || c.Cases[0].P99 != nil || changes(c) != nil {
		t.Errorf("%+v", c.Cases[0])
	}
}
