package report

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/plotter"

	"vfiouser/bench/result"
)

// leastPoints make a scaling curve.
const leastPoints = 3

// series are the cases that differ in one number of their names.
type series struct {
	layer, key, rest string // rest: the name less layer and axis
	cases            []*result.Case
	at               []float64
}

// seriesOf finds all series of the cases that want takes, in the order of the cases. Those with fewer
// than least points are dropped.
func seriesOf(r *result.Report, least int, want func(*result.Case) bool) []*series {
	var list []*series
	known := map[string]*series{}
	for i := range r.Cases {
		c := &r.Cases[i]
		if !c.Measured() || !want(c) {
			continue
		}
		for _, a := range result.Axes(c.Name) {
			rest := result.Without(c.Name, a.Key)
			s := known[a.Key+" "+rest]
			if s == nil {
				layer := result.Layer(c.Name)
				s = &series{layer: layer, key: a.Key, rest: strings.TrimPrefix(strings.TrimPrefix(rest, layer), "/")}
				known[a.Key+" "+rest] = s
				list = append(list, s)
			}
			if a.Value > 0 { // an axis is logarithmic
				s.cases, s.at = append(s.cases, c), append(s.at, a.Value)
			}
		}
	}
	return slices.DeleteFunc(list, func(s *series) bool { return len(s.cases) < least })
}

// quantity is what a curve shows: bytes a second where they move, else the time of an operation,
// or a gauge's value.
func (s *series) quantity() (a axis, of func(*result.Case, float64) float64) {
	unit := s.cases[0].Unit
	if unit != result.UnitTime {
		return axis{label: unit, format: func(v float64) string { return strings.TrimSuffix(Value(v, unit), " "+unit) }},
			func(_ *result.Case, v float64) float64 { return v }
	}
	for _, c := range s.cases {
		if c.Bytes == 0 {
			return axis{label: "time", format: Nanoseconds}, func(_ *result.Case, v float64) float64 { return v }
		}
	}
	return axis{label: "throughput", format: func(v float64) string { return si(v) + "B/s" }},
		func(c *result.Case, ns float64) float64 { return float64(c.Bytes) * 1e9 / ns }
}

func (s *series) title() string {
	if s.layer == s.key {
		return s.layer
	}
	return s.layer + " over " + s.key
}

// scaling makes the charts of how values grow with a number.
func scaling(r *result.Report) (charts []*chart) {
	open := map[string]*chart{} // that has room
	for _, s := range seriesOf(r, leastPoints, func(c *result.Case) bool { return c.Value.Median > 0 }) {
		if s.key == loadKey {
			continue // the rate is what it was set to
		}
		y, of := s.quantity()
		group := s.layer + " " + s.key + " " + y.label
		c := open[group]
		if c == nil || c.colors() == maxLines {
			c = &chart{Title: s.title(), x: axis{label: s.key, format: number, only: true}, y: y}
			open[group] = c
			charts = append(charts, c)
		}
		ours, limit := line{Name: orOurs(s.rest), Color: c.colors()}, line{Color: c.colors(), Dashed: true}
		for i, k := range s.cases {
			ours.points = append(ours.points, plotter.XY{X: s.at[i], Y: of(k, k.Value.Median)})
			if k.LimitValue != nil {
				limit.points = append(limit.points, plotter.XY{X: s.at[i], Y: of(k, k.LimitValue.Median)})
			}
		}
		sortPoints(ours.points)
		c.Lines = append(c.Lines, ours)
		if len(limit.points) > 1 {
			sortPoints(limit.points)
			c.Lines = append(c.Lines, limit)
		}
	}
	return charts
}

// The axes along which both latency and throughput grow: how many operations are under way at
// a time, and at what part of the highest rate they come.
const (
	depthKey = "depth"
	loadKey  = "load"
)

// latencies makes the charts of latency over throughput.
func latencies(r *result.Report) (charts []*chart) {
	var c *chart
	for _, s := range seriesOf(r, 2, (*result.Case).Timed) {
		if s.key != depthKey && s.key != loadKey {
			continue
		}
		if c == nil || c.layer != s.layer || c.Title != s.title() || c.colors() == maxLines {
			c = &chart{layer: s.layer, Title: s.title(), y: axis{label: "latency", format: Nanoseconds},
				x: axis{label: "ops/s", format: func(v float64) string { return strings.TrimSpace(si(v)) }}}
			charts = append(charts, c)
		}
		c.Lines = append(c.Lines, s.latency(c.colors())...)
	}
	return charts
}

// latency makes the curves of a series along its axis.
func (s *series) latency(color int) []line {
	order := make([]int, len(s.cases)) // a curve goes by its axis, not by the throughput
	timed := true
	for i, k := range s.cases {
		order[i] = i
		timed = timed && k.Latency != nil && k.Latency.P50 > 0
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(s.at[a], s.at[b]) })
	middle, tail := line{Name: orOurs(s.rest) + ", " + s.key + " " + span(s.at), Color: color}, line{Color: color, Dashed: true}
	for _, i := range order {
		k := s.cases[i]
		rate := 1e9 / k.Value.Median
		if !timed {
			middle.points = append(middle.points, plotter.XY{X: rate, Y: s.at[i] * k.Value.Median}) // Little's law
			continue
		}
		middle.points = append(middle.points, plotter.XY{X: rate, Y: k.Latency.P50})
		tail.points = append(tail.points, plotter.XY{X: rate, Y: max(k.Latency.P99, k.Latency.P50)})
	}
	if !timed {
		middle.Name += ", mean"
		return []line{middle}
	}
	return []line{middle, tail}
}

// colors is how many are in use.
func (c *chart) colors() (n int) {
	for _, l := range c.Lines {
		n = max(n, l.Color+1)
	}
	return n
}

func orOurs(rest string) string {
	if rest == "" {
		return "ours"
	}
	return rest
}

func span(values []float64) string {
	return number(slices.Min(values)) + " to " + number(slices.Max(values))
}

// number is short: "512", "4 Ki".
func number(v float64) string {
	for _, u := range []struct {
		unit  string
		scale float64
	}{{" Mi", 1 << 20}, {" Ki", 1 << 10}} {
		if q := v / u.scale; q >= 1 && q == float64(int64(q)) {
			return strconv.FormatFloat(q, 'f', -1, 64) + u.unit
		}
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}
