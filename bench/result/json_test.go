package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
)

func example() *Report {
	two := 2.0
	r := &Report{
		Schema: Schema, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 12.5, Mode: "quick", Rounds: 6,
		Environment: Environment{CPU: "A", CPUs: 2, Kernel: "Linux 6", Arch: "amd64", Go: "go1.26", GOMAXPROCS: 4, Commit: "abc", Pinned: true},
		Noise:       Noise{LoadBefore: 0.5, Notes: []string{"quiet"}},
		Cases: []Case{
			{Name: "irq/trigger", Unit: UnitTime, Limit: "eventfd-write", Operations: 10, Samples: []float64{4, 5, 6, 4, 5, 6},
				LimitSamples: []float64{2, 5, 3, 4, 5, 3}, Allocs: &two,
				Latency: &Latency{Count: 3, P50: 4, P50Samples: []float64{4, 4, 5, 4, 4, 4}, P99Samples: []float64{9, 9, 9, 8, 9, 9}}},
			{Name: "idle/memory", Unit: "B", Samples: []float64{0, 0, 0, 0, 0, 0}},
			{Name: "nbd/read", Missing: "no server"},
		},
	}
	for i := range r.Cases {
		r.Cases[i].Summarize()
	}
	return r
}

func TestJSONRoundTrip(t *testing.T) {
	want := example()
	var file strings.Builder
	if err := want.Write(&file); err != nil {
		t.Fatal(err)
	}
	got, err := Read(strings.NewReader(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read   %+v\nwritten %+v", got, want)
	}
}

func TestWhatFollowsIsWorkedOutAnew(t *testing.T) {
	const file = `{"schema":1,"cases":[{"name":"a","unit":"ns/op","samples":[10,10,10,10,10,10],"value":{"median":1},"ratio":{"median":9},"noisy":true}]}`
	r, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Cases[0]; c.Value.Median != 10 || c.Ratio != nil || c.Noisy {
		t.Errorf("%+v", c)
	}
}

func TestHostileFiles(t *testing.T) {
	one := func(members string) string { return `{"schema":1,"cases":[{` + members + `}]}` }
	tests := map[string]string{
		"nothing":               "",
		"no JSON":               "\x7fELF",
		"a list":                "[]",
		"null":                  "null",
		"no schema":             "{}",
		"a later schema":        `{"schema":2}`,
		"deep":                  strings.Repeat(`{"cases":`, 100_000),
		"no name":               one(`"unit":"ns/op","samples":[1]`),
		"an escape in a name":   one(`"name":"a\u001b[31m","unit":"ns/op","samples":[1]`),
		"markup in a name":      one(`"name":"<script>","unit":"ns/op","samples":[1]`),
		"a long name":           one(`"name":"` + strings.Repeat("a", MaxName+1) + `","unit":"ns/op","samples":[1]`),
		"an escape in a limit":  one(`"name":"a","limit":"\u001b","unit":"ns/op","samples":[1]`),
		"an escape in a unit":   one(`"name":"a","unit":"\u001b]0;x\u0007","samples":[1]`),
		"an escape in a reason": one(`"name":"a","missing":"\u009b31m"`),
		"no samples":            one(`"name":"a","unit":"ns/op"`),
		"no time":               one(`"name":"a","unit":"ns/op","samples":[0]`),
		"less than no time":     one(`"name":"a","unit":"ns/op","samples":[-1]`),
		"next to no time":       one(`"name":"a","unit":"ns/op","samples":[5e-324]`),
		"tails of no round":     one(`"name":"a","unit":"ns/op","samples":[1],"latency":{"p50_samples":[1,1],"p99_samples":[1,1]}`),
		"middles alone":         one(`"name":"a","unit":"ns/op","samples":[1],"latency":{"p50_samples":[1]}`),
		"a tail of no time":     one(`"name":"a","unit":"ns/op","samples":[1],"latency":{"p50_samples":[1],"p99_samples":[0]}`),
		"an eternity":           one(`"name":"a","unit":"ns/op","samples":[1e308]`),
		"more than a float":     one(`"name":"a","unit":"ns/op","samples":[1e999]`),
		"a null of a limit":     one(`"name":"a","unit":"ns/op","samples":[1],"limit_samples":[null]`),
		"a limit too short":     one(`"name":"a","unit":"ns/op","samples":[1,2],"limit_samples":[1]`),
		"a gauge with a limit":  one(`"name":"a","unit":"B","samples":[0],"limit_samples":[1]`),
		"too many samples":      one(`"name":"a","unit":"B","samples":[1` + strings.Repeat(",1", maxSamples) + `]`),
		"negative bytes":        one(`"name":"a","unit":"ns/op","samples":[1],"bytes":-1`),
		"negative allocations":  one(`"name":"a","unit":"ns/op","samples":[1],"allocs":-1`),
		"a latency":             one(`"name":"a","unit":"ns/op","samples":[1],"latency":{"p50":-1}`),
		"the same twice":        `{"schema":1,"cases":[{"name":"a","unit":"B","samples":[1]},{"name":"a","unit":"B","samples":[1]}]}`,
		"too many cases":        `{"schema":1,"cases":[{}` + strings.Repeat(",{}", maxCases) + `]}`,
		"cases that are none":   `{"schema":1,"cases":{}}`,
		"a number of bytes":     one(`"name":"a","unit":"ns/op","samples":[1],"bytes":1` + strings.Repeat("0", 10_000)),
		"negative rounds":       `{"schema":1,"rounds":-1}`,
		"negative CPUs":         `{"schema":1,"environment":{"cpus":-1}}`,
		"an escape in the CPU":  `{"schema":1,"environment":{"cpu":"\u001b"}}`,
		"a long note":           `{"schema":1,"noise":{"notes":["` + strings.Repeat("a", maxText+1) + `"]}}`,
		"negative noise":        `{"schema":1,"noise":{"stolen":-1}}`,
	}
	for name, file := range tests {
		if r, err := Read(strings.NewReader(file)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: read as %+v, %v", name, r, err)
		} else if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\u009b\x07") {
			t.Errorf("%s: the error is %q", name, err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestEndlessFile(t *testing.T) {
	if _, err := Read(endless{}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestReaderFails(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Read(failing{broken}); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzRead: a file that can be read is the same when it was written and read again. One that cannot
// is refused with few words that do nothing to a terminal.
func FuzzRead(f *testing.F) {
	file, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(file))
	f.Add(fmt.Sprintf(`{"schema":%d}`, Schema))
	f.Add(`{"schema":1,"cases":[{"name":"a/b=2","unit":"B","samples":[1,2],"allocs":0,"missing":"no"},{"name":"c","missing":"\u00e9"}]}`)
	f.Fuzz(func(t *testing.T, file string) {
		r, err := Read(strings.NewReader(file))
		if err != nil {
			if !errors.Is(err, ErrFormat) || len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("the error is %q", err)
			}
			return
		}
		written := func(r *Report) string {
			var b strings.Builder
			if err := r.Write(&b); err != nil {
				t.Fatal(err) // a median that JSON cannot hold
			}
			return b.String()
		}
		text := written(r)
		again, err := Read(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s\nis written as\n%s\nwhich is %v", file, text, err)
		}
		if other := written(again); other != text {
			t.Fatalf("%s\nis written again as\n%s", text, other)
		}
		for i := range r.Cases {
			if c := &r.Cases[i]; c.Measured() && !(c.Value.Low <= c.Value.Median && c.Value.Median <= c.Value.High) {
				t.Fatalf("%+v of %v", c.Value, c.Samples)
			}
		}
	})
}
