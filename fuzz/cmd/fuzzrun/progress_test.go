package main

import (
	"strings"
	"testing"
	"time"
)

func TestInputsOfTheCorpusCount(t *testing.T) {
	var p progress
	p.read("fuzz: elapsed: 3s, gathering baseline coverage: 12/85 completed")
	if p.executions != 12 || p.corpus != 85 || p.baseline != "12/85" {
		t.Errorf("progress %+v", p)
	}
}

func TestProgress(t *testing.T) {
	const run = `fuzz: elapsed: 0s, gathering baseline coverage: 0/4 completed
fuzz: elapsed: 0s, gathering baseline coverage: 4/4 completed, now fuzzing with 1 workers
fuzz: elapsed: 3s, execs: 10776 (3577/sec), new interesting: 2 (total: 6)
fuzz: elapsed: 1m6s, execs: 20776 (0/sec), new interesting: 3 (total: 7)
`
	for _, c := range []struct {
		name, output, failure string
		want                  progress
	}{
		{"quiet", run + "PASS\n", "", progress{}},
		{"crash", run + `fuzz: minimizing 32-byte failing input file
fuzz: elapsed: 1m9s, minimizing
--- FAIL: FuzzText (69.01s)
    --- FAIL: FuzzText (0.00s)
        text_test.go:7: wrong
` + "    \n" + `    Failing input written to testdata/fuzz/FuzzText/0a1b2c
`, "text_test.go:7: wrong", progress{shrinking: true, crash: "FuzzText/0a1b2c"}},
		{"stored input crashes", run + `failure while testing seed corpus entry: FuzzText/no-end
--- FAIL: FuzzText (0.01s)
`, "--- FAIL: FuzzText", progress{crash: "FuzzText/no-end", stored: true}},
		{"interrupted", run + `--- FAIL: FuzzText (66.00s)
    context canceled
FAIL
`, "--- FAIL: FuzzText", progress{cut: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p progress
			var failure strings.Builder
			for line := range strings.Lines(c.output) {
				if p.read(strings.TrimSuffix(line, "\n")) {
					failure.WriteString(line)
				}
			}
			c.want.baseline, c.want.executions, c.want.found, c.want.corpus, c.want.fuzzing = "4/4", 20776, 3, 7, 66*time.Second
			if p != c.want {
				t.Errorf("progress %+v, want %+v", p, c.want)
			}
			if got := failure.String(); !strings.Contains(got, c.failure) || strings.Contains(got, "elapsed") {
				t.Errorf("the failure is %q", got)
			}
		})
	}
}
