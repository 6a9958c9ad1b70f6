package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"vfiouser/bench/compare"
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
		fmt.Fprintf(w, "%s\t", k.Name)
		if v := k.Value; v != nil {
			fmt.Fprintf(w, "%s\t%s\t%s\t", Value(v.Old, k.Unit), Value(v.New, k.Unit), delta(v, false))
		} else {
			fmt.Fprint(w, "\t\t\t")
		}
		if v := k.Cost; v != nil {
			fmt.Fprintf(w, "%s\t%s\t%s\t", ratioDigits(1/v.Old), ratioDigits(1/v.New), delta(v, true))
		} else {
			fmt.Fprint(w, "\t\t\t")
		}
		fmt.Fprintln(w, verdict(k))
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

func verdict(k *compare.Case) string {
	s := string(k.Verdict)
	if k.Verdict == compare.Faster || k.Verdict == compare.Slower {
		s += fmt.Sprintf(" (p=%.3f)", k.P)
	}
	if k.Reason != "" {
		s += ": " + k.Reason
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
	faster, slower, fails := 0, 0, 0
	for i := range c.Cases {
		switch c.Cases[i].Verdict {
		case compare.Faster:
			faster++
		case compare.Slower:
			slower++
		case compare.Fails:
			fails++
		}
	}
	if faster+slower+fails > 0 {
		summary = fmt.Sprintf("%d faster, %d slower, %d fail", faster, slower, fails)
	}
	fmt.Fprintf(w, "geometric mean\t\t\t%s\t\t\t%s\t%s\n", time, ratio, summary)
}
