package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"vfiouser/bench/compare"
	"vfiouser/bench/result"
)

// Comparison prints a comparison for a terminal. A change that is not significant by itself is "~".
func Comparison(out io.Writer, c *compare.Comparison) error {
	var b strings.Builder
	for _, d := range c.Differences {
		fmt.Fprintf(&b, "%s\n", d)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "%s\n", n)
	}
	if b.Len() > 0 {
		fmt.Fprintln(&b)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\told\tnew\tchange\told ratio\tnew ratio\tchange\tverdict")
	for i := range c.Cases {
		k := &c.Cases[i]
		fmt.Fprintf(w, "%s\t%s\t%s%s\n", k.Name, changes(&k.Finding, k.Unit), verdict(&k.Finding), also(k))
		for _, tail := range []struct {
			what string
			*compare.Finding
		}{{"p50", k.P50}, {"p99", k.P99}} {
			if tail.Finding != nil {
				fmt.Fprintf(w, "  %s\t%s\t%s\n", tail.what, changes(tail.Finding, result.UnitTime), verdict(tail.Finding))
			}
		}
	}
	means(w, c)
	_ = w.Flush() // a builder takes everything
	list := func(title string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "\n%s: %s\n", title, strings.Join(names, ", "))
		}
	}
	list("only in the old run", c.OnlyOld)
	list("only in the new run", c.OnlyNew)
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// changes are the six columns between name and verdict.
func changes(f *compare.Finding, unit string) string {
	value, ratio := "\t\t", "\t\t"
	if v := f.Value; v != nil {
		value = fmt.Sprintf("%s\t%s\t%s", Value(v.Old, unit), Value(v.New, unit), delta(v, false))
	}
	if v := f.Cost; v != nil {
		ratio = fmt.Sprintf("%s\t%s\t%s", ratioDigits(1/v.Old), ratioDigits(1/v.New), delta(v, true))
	}
	return value + "\t" + ratio
}

// delta is the change in percent, of the inverse if asked, and how sure it is that there is one.
func delta(v *compare.Change, inverse bool) string {
	if !(v.P < compare.Alpha) {
		return fmt.Sprintf("~ (p=%.3f)", v.P)
	}
	by := v.Delta
	if inverse {
		by = 1/(1+by) - 1
	}
	return fmt.Sprintf("%s (p=%.3f)", percent(by), v.P)
}

func percent(by float64) string {
	switch {
	case by >= math.MaxFloat64:
		return "from nothing"
	case by > 10:
		return "×" + digits(by+1)
	}
	return fmt.Sprintf("%+.1f%%", by*100)
}

// Percent writes a threshold: "5%" of 0.05.
func Percent(threshold float64) string { return fmt.Sprintf("%.6g%%", threshold*100) }

func verdict(f *compare.Finding) string {
	if f.Verdict == compare.Faster || f.Verdict == compare.Slower {
		return fmt.Sprintf("%s (p=%.3f)", f.Verdict, f.P)
	}
	return string(f.Verdict)
}

// also is what is to be said of a case beside its verdict.
func also(k *compare.Case) (s string) {
	if k.Reason != "" {
		s = ": " + k.Reason
	}
	for _, also := range []struct {
		what string
		v    *[2]float64
	}{{"allocations", k.Allocs}, {"system calls", k.Syscalls}} {
		if also.v != nil {
			s += fmt.Sprintf("; %s %s → %s", also.what, count(&also.v[0]), count(&also.v[1]))
		}
	}
	return s
}

// means is the last line of the table.
func means(w io.Writer, c *compare.Comparison) {
	if c.Time == nil && c.Cost == nil {
		return
	}
	time, ratio := "", ""
	if c.Time != nil {
		time = percent(*c.Time)
	}
	if c.Cost != nil {
		ratio = percent(1/(1+*c.Cost) - 1)
	}
	summary := "no significant change beyond " + Percent(c.Threshold)
	faster, slower, allocate, fails := 0, 0, 0, 0
	for i := range c.Cases {
		switch k := &c.Cases[i]; {
		case k.Verdict == compare.Fails:
			fails++
		case k.Verdict == compare.Allocates:
			allocate++
		case k.Slower():
			slower++
		case k.Faster():
			faster++
		}
	}
	if faster+slower+allocate+fails > 0 {
		summary = fmt.Sprintf("%d faster, %d slower, %d allocate, %d fail", faster, slower, allocate, fails)
	}
	fmt.Fprintf(w, "geometric mean\t\t\t%s\t\t\t%s\t%s\n", time, ratio, summary)
}
