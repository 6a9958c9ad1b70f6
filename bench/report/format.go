package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/docker/go-units"

	"vfiouser/bench/result"
)

// Nanoseconds gives a time with three digits: "4.52 ns", "11.2 µs".
func Nanoseconds(ns float64) string {
	for _, u := range []struct {
		unit  string
		scale float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= u.scale {
			return digits(ns/u.scale) + " " + u.unit
		}
	}
	return digits(ns) + " ns"
}

// digits gives three, and no more zeros than that takes.
func digits(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// count gives something per operation: "0", "2", "0.03".
func count(v *float64) string {
	switch {
	case v == nil:
		return "–"
	case math.Abs(*v-math.Round(*v)) < 0.005:
		return fmt.Sprintf("%.0f", *v)
	}
	return digits(*v)
}

// Value gives a value in its unit: a time, bytes, or what a gauge measures.
func Value(v float64, unit string) string {
	if unit == result.UnitTime {
		return Nanoseconds(v)
	}
	if rest, ok := strings.CutPrefix(unit, "B"); ok && (rest == "" || rest[0] == '/') {
		return units.BytesSize(v) + rest
	}
	return digits(v) + " " + unit
}

// Ratio gives a ratio with its interval: "0.95 [0.93, 0.97]".
func Ratio(s *result.Summary) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s [%s, %s]", ratioDigits(s.Median), ratioDigits(s.Low), ratioDigits(s.High))
}

// ratioDigits keeps small ratios apart.
func ratioDigits(v float64) string {
	switch {
	case v > 0 && v < 0.01:
		return fmt.Sprintf("%.2g", v)
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	}
	return digits(v)
}

// rate gives operations a second, or bytes a second where an operation moves some.
func rate(c *result.Case) string {
	if !c.Timed() || c.Value.Median == 0 {
		return ""
	}
	perSecond := 1e9 / c.Value.Median
	if c.Bytes > 0 {
		return si(perSecond*float64(c.Bytes)) + "B/s"
	}
	return si(perSecond) + "/s"
}

// si gives three digits and a decimal prefix: "1.90 M".
func si(v float64) string {
	for _, p := range []struct {
		prefix string
		scale  float64
	}{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if v >= p.scale {
			return digits(v/p.scale) + " " + p.prefix
		}
	}
	return digits(v) + " "
}
