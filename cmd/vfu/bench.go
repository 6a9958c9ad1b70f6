package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"vfiouser/bench"
	"vfiouser/bench/measure"
	benchreport "vfiouser/bench/report"
	benchresult "vfiouser/bench/result"
)

const benchLong = `Measure the engine on this machine, from the codec up to devices under load. Every result
stands beside its limit, what the machine can do at best with the same work (a bare memcpy,
write(2), socket), measured next to it in the same run: the ratio is what counts, 1 is at the limit.

  vfu bench --quick
  vfu bench --out /tmp/before              # results.json, report.html, overview.png
  vfu bench --only '^nvme/.*depth=32'
  vfu bench compare /tmp/before/results.json /tmp/after/results.json

It wants a quiet machine and two processors, and says what disturbed it. System calls are counted where
the kernel lets it (root). docs/bench.md has the method and describes the JSON.`

// benchMode is how much time a run takes.
type benchMode struct {
	name   string
	rounds int
	target time.Duration // of a measurement
}

var (
	quickMode    = benchMode{"quick", 10, 15 * time.Millisecond}
	standardMode = benchMode{"standard", 12, 30 * time.Millisecond}
	fullMode     = benchMode{"full", 20, 40 * time.Millisecond}
)

// maxRounds bounds --rounds.
const maxRounds = 1000

// benchRun holds the options of vfu bench.
type benchRun struct {
	quick, full bool
	only        string
	list        bool
	out         string
	rounds      int
	json        bool
}

func benchCommand() *cobra.Command {
	var o benchRun
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the engine on this machine, each result beside its limit",
		Long:  benchLong,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), bench.Cases(), bench.Limits())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.quick, "quick", false, "some of the cases, and less time for each: half a minute")
	f.BoolVar(&o.full, "full", false, "all cases, twice as many as by default, more rounds and more time for each")
	f.StringVar(&o.only, "only", "", "measure cases that match this `REGEXP`")
	f.BoolVar(&o.list, "list", false, "print the names of the cases and of their limits, measure nothing (--full --list: of all)")
	f.StringVar(&o.out, "out", "", "write results.json, report.html and overview.png into `DIR`, which is made if it is not there")
	f.IntVar(&o.rounds, "rounds", 0, fmt.Sprintf("samples of each case, %d to %d (default %d; with --quick %d, with --full %d)",
		benchresult.MinRounds, maxRounds, standardMode.rounds, quickMode.rounds, fullMode.rounds))
	f.BoolVar(&o.json, "json", false, "print JSON")
	cmd.AddCommand(benchCompareCommand())
	return cmd
}

func (o *benchRun) run(ctx context.Context, out io.Writer, cases []bench.Case, limits []bench.Limit) error {
	mode, err := o.mode()
	if err != nil {
		return err
	}
	if cases, err = o.chosen(cases); err != nil {
		return err
	}
	if o.list {
		return o.printList(out, cases)
	}
	if err := o.makeOut(); err != nil {
		return err
	}
	var bar benchBar
	r, err := measure.Run(ctx, cases, limits, measure.Options{
		Mode: mode.name, Rounds: mode.rounds, Target: mode.target,
		Log:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Progress: bar.at,
	})
	bar.done()
	if ctx.Err() != nil {
		return errors.New("interrupted, nothing is written")
	}
	if err != nil {
		return err
	}
	written := o.write(r) // if it fails, what was measured is shown all the same
	if o.json {
		err = r.Write(out)
	} else {
		err = benchreport.Table(out, r)
	}
	return errors.Join(written, err, failedCases(r))
}

// makeOut makes the folder of --out, and sees that files can be made in it: that it cannot
// be is not to be found out after minutes.
func (o *benchRun) makeOut() error {
	if o.out == "" {
		return nil
	}
	if err := os.MkdirAll(o.out, 0o777); err != nil {
		return err
	}
	probe, err := os.CreateTemp(o.out, ".vfu")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// mode is what the options ask for.
func (o *benchRun) mode() (benchMode, error) {
	mode := standardMode
	switch {
	case o.quick && o.full:
		return mode, usageError{errors.New("--quick and --full: one or the other")}
	case o.list && (o.json || o.out != "" || o.rounds != 0):
		return mode, usageError{errors.New("--list measures nothing: --json, --out and --rounds are not for it")}
	case o.quick:
		mode = quickMode
	case o.full:
		mode = fullMode
	}
	if o.rounds != 0 {
		if o.rounds < benchresult.MinRounds || o.rounds > maxRounds {
			return mode, usageError{fmt.Errorf("--rounds %d: must be from %d, fewer have no confidence interval, to %d", o.rounds, benchresult.MinRounds, maxRounds)}
		}
		mode.rounds = o.rounds
	}
	return mode, nil
}

// chosen are the cases that the options ask for.
func (o *benchRun) chosen(all []bench.Case) (cases []bench.Case, err error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return nil, usageError{fmt.Errorf("--only %q: %w", o.only, err)}
	}
	for _, c := range all {
		if only.MatchString(c.Name) && (c.Quick || !o.quick) && (o.full || !c.Full) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return nil, usageError{fmt.Errorf("--only %q: no case matches; --list shows those of this run, --full --list all", o.only)}
	}
	return cases, nil
}

func (o *benchRun) printList(out io.Writer, cases []bench.Case) error {
	return lines(out, func(w io.Writer) {
		for _, c := range cases {
			fmt.Fprintf(w, "%s\t%s\n", c.Name, c.Limit)
		}
	})
}

// write leaves the files of --out.
func (o *benchRun) write(r *benchresult.Report) error {
	if o.out == "" {
		return nil
	}
	return errors.Join(
		o.file("results.json", r.Write),
		o.file("report.html", func(w io.Writer) error { return benchreport.Page(w, r) }),
		o.file("overview.png", func(w io.Writer) error { return benchreport.Picture(w, r) }),
	)
}

func (o *benchRun) file(name string, write func(io.Writer) error) error {
	path := filepath.Join(o.out, name)
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	if b.Len() == 0 { // and none is better than an earlier run's
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	part := path + ".part" // no file, or an earlier run's, is better than half of one
	err := os.WriteFile(part, b.Bytes(), 0o666)
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part) // it may not be there
	}
	return err
}

// failedCases is an error if there are any.
func failedCases(r *benchresult.Report) error {
	failed := 0
	for i := range r.Cases {
		if r.Cases[i].Failed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases failed", failed, len(r.Cases))
	}
	return nil
}
