package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	benchcompare "vfiouser/bench/compare"
	benchreport "vfiouser/bench/report"
	benchresult "vfiouser/bench/result"
)

const benchCompareLong = `Say of every case of two runs whether it got faster or slower, or that there is no telling.

A change is claimed if the time changed by more than the threshold, its ratio to the limit, measured beside it, in
the same direction by more than half of that, both by more than either run differs from itself, and if that is
significant (Mann-Whitney U test as benchstat has it, corrected for the number of cases). Percentiles of latency are
judged in the same way. Runs of different machines are compared by the ratio alone.

  vfu bench compare before/results.json after/results.json

The exit status is 1 if a case got slower by more than the threshold, allocates and did not before, or fails now, and 2 if the files
cannot be compared. docs/bench.md has the method and describes the JSON.`

// benchCompare holds the options of vfu bench compare.
type benchCompare struct {
	threshold string
	json      bool
}

func benchCompareCommand() *cobra.Command {
	var o benchCompare
	cmd := &cobra.Command{
		Use:   "compare OLD.json NEW.json",
		Short: "Say what got faster or slower between two runs",
		Long:  benchCompareLong,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("compare needs two files: OLD.json NEW.json (arguments: %d)", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.OutOrStdout(), args[0], args[1]) },
	}
	cmd.Flags().StringVar(&o.threshold, "threshold", "5%", "a change that does not matter, in `PERCENT`")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *benchCompare) run(out io.Writer, before, after string) error {
	threshold, err := parsePercent(o.threshold)
	if err != nil {
		return usageError{fmt.Errorf("--threshold %q: %w", o.threshold, err)}
	}
	old, err := readResults(before)
	if err != nil {
		return err
	}
	now, err := readResults(after)
	if err != nil {
		return err
	}
	c := benchcompare.Runs(old, now, threshold)
	if len(c.Cases) == 0 {
		return usageError{fmt.Errorf("%s and %s have no case in common", before, after)}
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		err = e.Encode(c)
	} else {
		err = benchreport.Comparison(out, c)
	}
	if err == nil && c.Regressions > 0 {
		err = fmt.Errorf("%d of %d cases got slower by more than %s, allocate, or fail", c.Regressions, len(c.Cases), benchreport.Percent(threshold))
	}
	return err
}

// parsePercent gives 0.05 for "5%" and for "5".
func parsePercent(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(v >= 0 && v <= 1000) { // no NaN either
		return 0, errors.New("must be from 0% to 1000%")
	}
	return v / 100, nil
}

// readResults reads a file of vfu bench --out. That it cannot be is not told by the same exit
// status as a regression.
func readResults(path string) (*benchresult.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError{err}
	}
	defer f.Close()
	r, err := benchresult.Read(f)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	return r, nil
}
