package measure

import (
	"strings"
	"testing"

	"vfiouser/bench/result"
)

func TestNotes(t *testing.T) {
	one := 1.0
	quiet := result.Report{
		Environment: result.Environment{CPUs: 4, Pinned: true},
		Cases:       []result.Case{{Samples: []float64{1}, Syscalls: &one}},
	}
	tests := []struct {
		name  string
		noise result.Noise
		spoil func(*result.Report)
		want  string
	}{
		{"nothing", result.Noise{LoadBefore: 0.9, Stolen: 0.001, SpinSpread: 0.01}, nil, "quiet"},
		{"load", result.Noise{LoadBefore: 1.2}, nil, "load average 1.20 on 4 CPUs"},
		{"steal", result.Noise{Stolen: 0.125}, nil, "took 12.5 %"},
		{"speed", result.Noise{SpinSpread: 0.3}, nil, "varied by 30 %"},
		{"a hypervisor that moves processors", result.Noise{Apart: 0.25}, nil, "In 25 % of the measurements"},
		{"unpinned", result.Noise{}, func(r *result.Report) { r.Environment.Pinned = false }, "pinned"},
		{"wide", result.Noise{}, func(r *result.Report) { r.Cases[0].Noisy = true }, "1 of 1 results are marked"},
		{"uncounted", result.Noise{}, func(r *result.Report) { r.Cases[0].Syscalls = nil }, "not counted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := quiet
			r.Cases = append([]result.Case(nil), quiet.Cases...)
			if test.spoil != nil {
				test.spoil(&r)
			}
			if got := notes(test.noise, &r); len(got) != 1 || !strings.Contains(got[0], test.want) {
				t.Errorf("%q; want one with %q", got, test.want)
			}
		})
	}
}
