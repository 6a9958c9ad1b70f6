package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// table prints a line for each result and their sum.
func table(w io.Writer, results []result) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "executions\tper second\tnew\tcorpus\tcoverage\tcrashes\t  target")
	var sum result
	for _, r := range results {
		fmt.Fprintf(tab, "%d\t%.0f\t%d\t%d\t%s\t%d\t  %s\n", r.Executions, r.Rate, r.Found, r.Corpus, r.covered(), r.Crashes, r.Target)
		sum.Seconds += r.Seconds
		sum.Executions += r.Executions
		sum.Found += r.Found
		sum.Corpus += r.Corpus
		sum.Crashes += r.Crashes
	}
	fmt.Fprintf(tab, "%d\t\t%d\t%d\t\t%d\t  %d targets in %.0f s\n", sum.Executions, sum.Found, sum.Corpus, sum.Crashes, len(results), sum.Seconds)
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		r.crash.describe(w, r.Target, r.Crashes > 0)
	}
	return nil
}

// describe tells of an input that failed, if there is one, and how to run it again.
func (c *crash) describe(w io.Writer, target string, crashes bool) {
	if c.name == "" {
		return
	}
	what, input := "CRASHES", "the seed "+c.name
	if !crashes {
		what = "was slow"
	}
	if c.Input != "" {
		input = c.Input
	}
	size := ""
	switch {
	case c.FoundAs > c.Bytes:
		size = fmt.Sprintf(" (%d bytes, %d when it was found)", c.Bytes, c.FoundAs)
	case c.Bytes > 0:
		size = fmt.Sprintf(" (%d bytes)", c.Bytes)
	}
	fmt.Fprintf(w, "\n%s %s with %s%s. Run it with\n    %s\n", target, what, input, size, c.Replay)
	if c.Remark != "" {
		fmt.Fprintf(w, "(%s)\n", c.Remark)
	}
}

// covered is the coverage as text.
func (r result) covered() string {
	if r.Coverage == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f%% of %d", r.Coverage.Percent(), r.Coverage.Statements)
}

// meter shows on a terminal, in one line that it overwrites, how a target does.
type meter struct {
	w        io.Writer
	terminal bool
}

func newMeter(f *os.File) meter {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return meter{f, err == nil}
}

// doing says what is under way.
func (m meter) doing(t target, what string) {
	if m.terminal {
		fmt.Fprintf(m.w, "\r\x1b[K%s: %s", t, what)
	}
}

func (m meter) progress(t target, p progress) {
	switch {
	case p.shrinking:
		m.doing(t, "crashed, shrinks the input")
	case p.fuzzing == 0:
		m.doing(t, "runs the corpus, "+p.baseline)
	default:
		m.doing(t, fmt.Sprintf("%v, %d executions, %d new, corpus %d", p.fuzzing, p.executions, p.found, p.corpus))
	}
}

// clear removes what is shown.
func (m meter) clear() {
	if m.terminal {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

// done prints what came of a target.
func (m meter) done(r result) {
	m.clear()
	fmt.Fprintf(m.w, "%s: %d executions in %.0f s, %.0f/s, %d new, corpus %d, coverage %s, %d crashes\n",
		r.Target, r.Executions, r.Seconds, r.Rate, r.Found, r.Corpus, r.covered(), r.Crashes)
	if r.crash.name != "" {
		fmt.Fprintln(m.w, r.Failure)
		r.crash.describe(m.w, r.Target, r.Crashes > 0)
	}
}
