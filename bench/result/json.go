package result

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// What a file may hold at most: more than any run makes.
const (
	maxFile    = 64 << 20 // bytes
	maxCases   = 2_000
	maxSamples = 1_000
	maxText    = 1_000 // bytes
	maxError   = 200   // bytes, of what is wrong with the JSON
	maxNotes   = 100
	maxValue   = 1e18 // thirty years in nanoseconds
	minTime    = 1e-9 // nanoseconds; the least that a run can find. What took no time has no ratio
)

// ErrFormat is what Read finds wrong with a file.
var ErrFormat = errors.New("result: not a report of vfu bench")

// Write prints the report as JSON.
func (r *Report) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// Read reads a report, which may come from anywhere. What follows from the samples is worked
// out anew. Its errors are the reader's own or wrap ErrFormat.
func Read(from io.Reader) (*Report, error) {
	content, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, maxFile)
	}
	r := new(Report)
	if err := json.Unmarshal(content, r); err != nil {
		// Which may quote all of a long number, or what does something to a terminal.
		return nil, fmt.Errorf("%w: %.*s", ErrFormat, maxError, Printable(err.Error()))
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for i := range r.Cases {
		r.Cases[i].Summarize()
	}
	return r, nil
}

// UnmarshalJSON stops at what is too much before there is memory for it: a case
// takes seventy times as much as the least of its text.
func (c *Cases) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	begin, err := d.Token()
	if err != nil || begin == nil { // null
		return err
	}
	if begin != json.Delim('[') {
		return errors.New("the cases are no list")
	}
	*c = Cases{}
	for d.More() {
		if len(*c) == maxCases {
			return fmt.Errorf("more than %d cases", maxCases)
		}
		var next Case
		if err := d.Decode(&next); err != nil {
			return err
		}
		*c = append(*c, next)
	}
	return nil
}

func (r *Report) check() error {
	if r.Schema != Schema {
		return fmt.Errorf("schema %d, known is %d", r.Schema, Schema)
	}
	if len(r.Noise.Notes) > maxNotes {
		return fmt.Errorf("%d notes", len(r.Noise.Notes))
	}
	if r.Rounds < 0 || r.Rounds > maxSamples || !sane(r.Seconds, 0) {
		return fmt.Errorf("%d rounds in %g seconds", r.Rounds, r.Seconds)
	}
	e := &r.Environment
	texts := append([]string{r.Mode, e.CPU, e.Kernel, e.Arch, e.Go, e.Commit, e.Governor, e.Hypervisor, e.HugePages}, r.Noise.Notes...)
	for _, text := range texts {
		if err := checkText(text); err != nil {
			return err
		}
	}
	if e.CPUs < 0 || e.GOMAXPROCS < 0 || e.Memory < 0 {
		return fmt.Errorf("%d CPUs, %d of them used, %d bytes of memory", e.CPUs, e.GOMAXPROCS, e.Memory)
	}
	n := &r.Noise
	for _, v := range []float64{n.LoadBefore, n.LoadAfter, n.Stolen, n.SpinSpread, n.Spin.Median, n.Spin.Low, n.Spin.High,
		n.Distance.Median, n.Distance.Low, n.Distance.High, n.Apart} {
		if !sane(v, 0) {
			return fmt.Errorf("noise of %g", v)
		}
	}
	names := make(map[string]bool, len(r.Cases))
	for i := range r.Cases {
		c := &r.Cases[i]
		if err := c.check(); err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		if names[c.Name] {
			return fmt.Errorf("case %s is there twice", c.Name)
		}
		names[c.Name] = true
	}
	return nil
}

func (c *Case) check() error {
	if !validName(c.Name) {
		return fmt.Errorf("the name %.60q", c.Name)
	}
	if c.Limit != "" && !validName(c.Limit) {
		return fmt.Errorf("%s: the limit %.60q", c.Name, c.Limit)
	}
	if err := errors.Join(checkText(c.Unit), checkText(c.Missing)); err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	if len(c.Samples) > maxSamples || len(c.LimitSamples) > 0 && len(c.LimitSamples) != len(c.Samples) {
		return fmt.Errorf("%s: %d samples, %d of the limit", c.Name, len(c.Samples), len(c.LimitSamples))
	}
	if len(c.Samples) == 0 && c.Missing == "" {
		return fmt.Errorf("%s: there are no samples, and no reason", c.Name)
	}
	if c.Bytes < 0 || c.Operations < 0 {
		return fmt.Errorf("%s: %d bytes, %d operations", c.Name, c.Bytes, c.Operations)
	}
	least := minTime
	if !c.Timed() {
		least = 0
		if len(c.LimitSamples) > 0 {
			return fmt.Errorf("%s: a gauge in %s with a limit", c.Name, c.Unit)
		}
	}
	for _, list := range [][]float64{c.Samples, c.LimitSamples} {
		if err := checkSamples(list, least); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	for _, v := range []*float64{c.Allocs, c.AllocBytes, c.Syscalls} {
		if v != nil && !sane(*v, 0) {
			return fmt.Errorf("%s: %g per operation", c.Name, *v)
		}
	}
	if l := c.Latency; l != nil {
		if n := len(l.P50Samples); n != len(l.P99Samples) || n != 0 && n != len(c.Samples) {
			return fmt.Errorf("%s: %d and %d samples of latency in %d rounds", c.Name, n, len(l.P99Samples), len(c.Samples))
		}
		for _, list := range [][]float64{l.P50Samples, l.P99Samples} {
			if err := checkSamples(list, minTime); err != nil {
				return fmt.Errorf("%s: latency: %w", c.Name, err)
			}
		}
		s := l.Spread
		for _, v := range []float64{float64(l.Count), l.Mean, l.P50, l.P90, l.P99, l.P999, l.Max, s.Median, s.Low, s.High} {
			if !sane(v, 0) {
				return fmt.Errorf("%s: a latency of %g", c.Name, v)
			}
		}
	}
	return nil
}

func checkSamples(list []float64, least float64) error {
	for _, v := range list {
		if !sane(v, least) {
			return fmt.Errorf("a sample of %g", v)
		}
	}
	return nil
}

// sane is false for what no run measures; JSON has no NaN and no infinity.
func sane(v, least float64) bool { return v >= least && v <= maxValue }

// Printable is s without what would do something to a terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// checkText refuses what would do something to a terminal.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("a text of %d bytes", len(s))
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("the text %.60q", s)
		}
	}
	return nil
}
