package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vfiouser/bench/result"
)

// example has every kind of result: curves with and without limits, latencies, gauges, what
// is missing, and texts that would do harm if they were taken for markup.
func example() *result.Report {
	half := 0.5
	r := &result.Report{
		Schema: result.Schema, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 95, Mode: "standard", Rounds: 6,
		Environment: result.Environment{CPU: `A<script>alert(1)</script>`, CPUs: 2, Memory: 8 << 30, Kernel: "Linux 6", Arch: "amd64", Go: "go1.26",
			Commit: "0123456789abcdef0123", Modified: true, Governor: "unknown", Hypervisor: "none", HugePages: "madvise"},
		Noise: result.Noise{LoadBefore: 3, Stolen: 0.02, SpinSpread: 0.3, Notes: []string{"The machine was <b>busy</b>."}},
	}
	add := func(name, unit, limit string, bytes int, ns, limitNS float64, latency bool) {
		c := result.Case{Name: name, Unit: unit, Limit: limit, Bytes: bytes, Allocs: &half}
		for i := range 6 {
			c.Samples = append(c.Samples, ns*(1+float64(i)/100))
			if limit != "" {
				c.LimitSamples = append(c.LimitSamples, limitNS*(1+float64(i)/200))
			}
		}
		if latency {
			c.Latency = &result.Latency{Count: 1000, P50: ns * 1.2, P99: ns * 9}
		}
		c.Summarize()
		r.Cases = append(r.Cases, c)
	}
	for _, regions := range []int{1, 100, 65535} {
		add(fmt.Sprintf("translate/random/regions=%d", regions), result.UnitTime, "load", 0, float64(3+regions/300), 1, false)
	}
	for _, depth := range []int{1, 4, 32} {
		for _, op := range []string{"read", "write"} {
			add(fmt.Sprintf("nvme/mem/%s/size=4096/depth=%d", op, depth), result.UnitTime, "memcpy", 4096, 900/float64(depth), 400/float64(depth), true)
		}
	}
	for _, n := range []int{1, 10, 100} {
		add(fmt.Sprintf("memory/sessions=%d", n), "B", "", 0, float64(n*40960), 0, false)
	}
	add("idle/cpu", "%", "", 0, 0, 0, false)
	r.Cases = append(r.Cases, result.Case{Name: "nbd/read", Missing: `no <img src="http://x/">`},
		result.Case{Name: "nbd/write", Missing: "broken", Failed: true})
	return r
}

// Charts of the example: one of translate and one of nvme over their axis, one of memory; and
// of latency over depth.
const (
	exampleScaling   = 3
	exampleLatencies = 1
)

func pageOf(t *testing.T, r *result.Report) string {
	t.Helper()
	var page strings.Builder
	if err := Page(&page, r); err != nil {
		t.Fatal(err)
	}
	return page.String()
}

func TestPageHasAllParts(t *testing.T) {
	page := pageOf(t, example())
	for _, id := range []string{"headline", "overview", "latency", "scaling", "results", "noise", "environment", "method"} {
		if !strings.Contains(page, `id="`+id+`"`) {
			t.Error("there is no section", id)
		}
	}
	if n, want := strings.Count(page, "<svg"), 1+exampleScaling+exampleLatencies; n != want {
		t.Errorf("%d charts; want %d", n, want)
	}
	for _, want := range []string{"0123456789ab with changes", "translate/random/regions=65535", "failed: broken", "varied by 30.0 %", "4.004MiB"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not there", want)
		}
	}
}

// A page that is opened from a file, in a year, without a network, shows what it shows now.
func TestPageRefersToNothingOutside(t *testing.T) {
	page := pageOf(t, example())
	for _, found := range regexp.MustCompile(`(?i)<(link|img|iframe|object|embed|base|audio|video)\b|@import|url\(|\b(src|srcset|action|data)\s*=\s*["']|javascript:`).FindAllString(page, -1) {
		t.Errorf("%q", found)
	}
	for _, m := range regexp.MustCompile(`(\S*)="(\w+:)?//[^"]*"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "xmlns") {
			t.Error(m[0])
		}
	}
	for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "#") {
			t.Error(m[0])
		}
	}
	if !strings.Contains(page, `content="default-src 'none'`) {
		t.Error("a browser would load what the page were made to refer to")
	}
}

func TestPageTakesTextsForTexts(t *testing.T) {
	page := pageOf(t, example())
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts; want its own alone", n)
	}
	if strings.Contains(page, "<b>busy") || strings.Contains(page, "<img") {
		t.Error("a text became markup")
	}
}

var drawing = regexp.MustCompile(`(?s)<svg.*?</svg>`)

func TestChartsAreWellFormedAndFollowTheTheme(t *testing.T) {
	for _, svg := range drawing.FindAllString(pageOf(t, example()), -1) {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %.200s", err, svg)
			}
			element, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			for _, a := range element.Attr {
				if strings.Contains(a.Value, "#") && a.Name.Local == "style" || strings.Contains(a.Value, "font-family") {
					t.Errorf("<%s %s=%q> is not the page's", element.Name.Local, a.Name.Local, a.Value)
				}
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("<%s %s=%q>", element.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
}

// Whatever there is of results, there is a page.
func TestPageOfLittle(t *testing.T) {
	for name, r := range map[string]*result.Report{
		"nothing":      {},
		"all missing":  {Cases: []result.Case{{Name: "a", Missing: "x", Failed: true}}},
		"a zero gauge": {Cases: []result.Case{{Name: "a", Unit: "B", Samples: []float64{0}}}},
		"no limits":    {Cases: []result.Case{{Name: "a/n=1", Unit: result.UnitTime, Samples: []float64{5}}}},
		"one of each": {Cases: []result.Case{{Name: "a/n=1", Unit: result.UnitTime, Limit: "l", Samples: []float64{5}, LimitSamples: []float64{5},
			Latency: &result.Latency{P50: 1}}}},
		"axes of nothing": {Cases: []result.Case{{Name: "a/n=0", Unit: result.UnitTime, Samples: []float64{5}}, {Name: "a/n=-1", Unit: result.UnitTime, Samples: []float64{5}},
			{Name: "a/n=NaN", Unit: result.UnitTime, Samples: []float64{5}}, {Name: "a/n=Inf", Unit: result.UnitTime, Samples: []float64{5}}}},
		"extremes": {Cases: []result.Case{
			{Name: "a/n=1e-300", Unit: result.UnitTime, Limit: "l", Bytes: 1, Samples: []float64{1e-9}, LimitSamples: []float64{1e18}},
			{Name: "a/n=1e300", Unit: result.UnitTime, Limit: "l", Bytes: 1 << 60, Samples: []float64{1e18}, LimitSamples: []float64{1e-9}},
			{Name: "a/n=2", Unit: result.UnitTime, Limit: "l", Bytes: 1, Samples: []float64{1}, LimitSamples: []float64{1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range r.Cases {
				r.Cases[i].Summarize()
			}
			for _, svg := range drawing.FindAllString(pageOf(t, r), -1) {
				if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
					t.Errorf("%.300s", svg)
				}
			}
			if err := Picture(io.Discard, r); err != nil {
				t.Error(err)
			}
			if err := Table(io.Discard, r); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPicture(t *testing.T) {
	var b strings.Builder
	if err := Picture(&b, example()); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, bl, a := img.At(0, 0).RGBA(); r&g&bl&a != 0xffff {
		t.Error("it is not on white")
	}
	colors := map[[3]uint32]bool{}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			colors[[3]uint32{r, g, b}] = true
		}
	}
	if len(colors) < 20 || img.Bounds().Dx() < overviewWidth {
		t.Errorf("%d colours in %v", len(colors), img.Bounds())
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, example()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"case", "nvme/mem/read/size=4096/depth=1    922 ns    405 ns", "0.44 [0.43, 0.44]", "1.08 µs / 8.10 µs", "idle/cpu", "0 %",
		"nbd/write                          failed\n", "nbd/write: failed: broken\n", "commit 0123456789abcdef0123 with changes", "The machine was <b>busy</b>.",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}

func TestFormats(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Nanoseconds(0.5), "0.50 ns"}, {Nanoseconds(999.4), "999 ns"}, {Nanoseconds(1000), "1.00 µs"}, {Nanoseconds(12345), "12.3 µs"},
		{Nanoseconds(2.5e9), "2.50 s"}, {Value(4096, "B"), "4KiB"}, {Value(4096, "B/session"), "4KiB/session"}, {Value(0.25, "%"), "0.25 %"},
		{Value(3, "Bogus"), "3.00 Bogus"}, {si(1.9e6), "1.90 M"}, {number(4096), "4 Ki"}, {number(65535), "65535"}, {bare("10.0 µs"), "10 µs"}, {bare("100"), "100"},
		{bare("0.10"), "0.1"}, {ratioDigits(0.012), "0.012"}, {ratioDigits(0.00037), "0.00037"}, {ratioDigits(0), "0.000"},
	} {
		if test.got != test.want {
			t.Errorf("%q; want %q", test.got, test.want)
		}
	}
}

func TestLogMarks(t *testing.T) {
	for _, test := range []struct{ low, high float64 }{{1, 1e9}, {1, 2}, {0.9, 1.8}, {3e-9, 4e18}, {1, 10}, {7, 30}} {
		marks := logMarks(test.low, test.high)
		if len(marks) < 3 || len(marks) > 9 {
			t.Errorf("%+v: %v", test, marks)
		}
		for _, m := range marks {
			if m < test.low || m > test.high {
				t.Errorf("%+v: %v", test, m)
			}
		}
	}
}

func TestMarksKeepApart(t *testing.T) {
	for _, test := range []struct{ values, want []float64 }{
		{[]float64{1, 10, 11, 100}, []float64{1, 10, 100}},
		{[]float64{1, 10, 11}, []float64{1, 11}},
		{[]float64{1, 1.1}, []float64{1}},
		{[]float64{1, 2, 4}, []float64{1, 2, 4}},
	} {
		if got := apart(test.values, 1.5); !slices.Equal(got, test.want) {
			t.Errorf("%v: %v", test.values, got)
		}
	}
}

// Whatever disturbs a run by itself is told at the top of the page.
func TestPageSaysThatARunWasDisturbed(t *testing.T) {
	for name, spoil := range map[string]func(*result.Report){
		"load":     func(r *result.Report) { r.Noise.LoadBefore = 1 },
		"steal":    func(r *result.Report) { r.Noise.Stolen = 0.5 },
		"speed":    func(r *result.Report) { r.Noise.SpinSpread = 0.5 },
		"interval": func(r *result.Report) { r.Cases[0].Noisy = true },
		"":         func(r *result.Report) { r.Noise.Notes = append(r.Noise.Notes, "Nothing was pinned.") },
	} {
		r := example()
		r.Noise = result.Noise{Notes: []string{"A note."}}
		for i := range r.Cases {
			r.Cases[i].Noisy = false
		}
		spoil(r)
		if told := strings.Contains(pageOf(t, r), "The run was disturbed"); told != (name != "") {
			t.Errorf("%q: %v", name, told)
		}
	}
}

// At a rate that is given, latency is drawn over it, and the rate over nothing.
func TestLatenciesAtAGivenRate(t *testing.T) {
	r := &result.Report{}
	for _, load := range []float64{10, 50, 90} {
		c := result.Case{Name: fmt.Sprintf("nvme/mem/read/depth=128/load=%g", load), Unit: result.UnitTime, Samples: []float64{1e5 / load},
			Latency: &result.Latency{P50: 5000, P99: load * 1000}}
		c.Summarize()
		r.Cases = append(r.Cases, c)
	}
	charts := latencies(r)
	if len(charts) != 1 || charts[0].Title != "nvme over load" || len(charts[0].Lines) != 2 {
		t.Fatalf("%+v", charts)
	}
	if line := charts[0].Lines[0]; line.Name != "mem/read/depth=128, load 10 to 90" || line.points[2].X != 9e5 || line.points[2].Y != 5000 {
		t.Errorf("%+v", line)
	}
	if charts := scaling(r); len(charts) != 0 {
		t.Errorf("%+v", charts)
	}
}
