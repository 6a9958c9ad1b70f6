package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"vfiouser/bench/result"
)

// Table prints the results for a terminal, and below them what is to be known of them.
func Table(out io.Writer, r *result.Report) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tours\tlimit\tratio [95 %]\tp50 / p99\tallocs/op\tsyscalls/op")
	for i := range r.Cases {
		c := &r.Cases[i]
		if !c.Measured() {
			fmt.Fprintf(w, "%s\t%s\t\t\t\t\t\n", c.Name, missingWord(c))
			continue
		}
		limit, latency := "", ""
		if c.LimitValue != nil {
			limit = Nanoseconds(c.LimitValue.Median)
		}
		if l := c.Latency; l != nil {
			latency = Nanoseconds(l.P50) + " / " + Nanoseconds(l.P99)
		}
		fmt.Fprintf(w, "%s\t%s%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, Value(c.Value.Median, c.Unit), mark(c), limit,
			Ratio(c.Ratio), latency, counted(c, c.Allocs), counted(c, c.Syscalls))
	}
	_ = w.Flush() // a builder takes everything
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	if err := missing(out, r); err != nil {
		return err
	}
	e := &r.Environment
	_, err := fmt.Fprintf(out, "\n%s, %d CPUs, %s, %s, commit %s%s\n%s\n", e.CPU, e.CPUs, e.Kernel, e.Go, e.Commit,
		modified(e), strings.Join(r.Noise.Notes, "\n"))
	return err
}

// mark points out a result whose interval is wide.
func mark(c *result.Case) string {
	if c.Noisy {
		return " ~"
	}
	return ""
}

func counted(c *result.Case, v *float64) string {
	if !c.Timed() {
		return ""
	}
	return count(v)
}

// missing says why cases are: below the table, for it may be long.
func missing(out io.Writer, r *result.Report) error {
	between := "\n"
	for i := range r.Cases {
		if c := &r.Cases[i]; !c.Measured() {
			if _, err := fmt.Fprintf(out, "%s%s: %s: %s\n", between, c.Name, missingWord(c), c.Missing); err != nil {
				return err
			}
			between = ""
		}
	}
	return nil
}

func missingWord(c *result.Case) string {
	if c.Failed {
		return "failed"
	}
	return "left out"
}

func modified(e *result.Environment) string {
	if e.Modified {
		return " with changes"
	}
	return ""
}
