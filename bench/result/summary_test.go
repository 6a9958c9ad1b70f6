package result

import (
	"math"
	"slices"
	"testing"
)

func TestSummarize(t *testing.T) {
	tests := []struct {
		name    string
		samples []float64
		want    Summary
	}{
		{"nothing", nil, Summary{}},
		{"one", []float64{3}, Summary{3, 3, 3, 0}},
		{"too few", []float64{5, 1, 3}, Summary{3, 1, 5, 0.75}},
		{"six, whose interval is all of them", []float64{6, 5, 4, 3, 2, 1}, Summary{3.5, 1, 6, 0.96875}},
		{"an outlier does not matter", []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 1e9}, Summary{5.5, 2, 9, 0.978515625}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.samples)
			got := Summarize(test.samples)
			if got.Median != test.want.Median || got.Low != test.want.Low || got.High != test.want.High || math.Abs(got.Confidence-test.want.Confidence) > 1e-9 {
				t.Errorf("%+v; want %+v", got, test.want)
			}
			if !slices.Equal(before, test.samples) {
				t.Error("the samples are in another order")
			}
		})
	}
}

func TestSame(t *testing.T) {
	low := []float64{1, 2, 3, 4, 5, 6, 7, 8}
	high := []float64{11, 12, 13, 14, 15, 16, 17, 18}
	if p := Same(low, low); p < 0.9 {
		t.Error("the same are the same by", p)
	}
	if p, want := Same(low, high), 2/12870.; math.Abs(p-want) > 1e-9 { // 16 over 8 orders, two of them as extreme
		t.Error(p, "instead of", want)
	}
	if p := Same(nil, low); p != 1 {
		t.Error("nothing is known of nothing, but", p)
	}
}

// A machine that slows down in the middle slows both, and the ratio stays.
func TestRatioIsPaired(t *testing.T) {
	c := Case{Unit: UnitTime, Samples: []float64{10, 10, 10, 20, 20, 20}, LimitSamples: []float64{5, 5, 5, 10, 10, 10}}
	c.Summarize()
	if c.Ratio == nil || c.Ratio.Median != 0.5 || c.Ratio.Low != 0.5 || c.Ratio.High != 0.5 {
		t.Errorf("%+v", c.Ratio)
	}
	if !c.Noisy {
		t.Error("a time that doubles is not noisy")
	}
}

func TestGeometricMean(t *testing.T) {
	for want, values := range map[float64][]float64{0: nil, 1: {0.5, 2}, 4: {2, 8}} {
		if got := GeometricMean(values); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v have %v", values, got)
		}
	}
}

func TestNameElements(t *testing.T) {
	const name = "nvme/mem/read/size=4096/mode=trap/depth=32"
	if got := Layer(name); got != "nvme" {
		t.Error(got)
	}
	if got := Axes(name); !slices.Equal(got, []Axis{{"size", 4096}, {"depth", 32}}) {
		t.Error(got)
	}
	if got := Without(name, "size"); got != "nvme/mem/read/mode=trap/depth=32" {
		t.Error(got)
	}
}
