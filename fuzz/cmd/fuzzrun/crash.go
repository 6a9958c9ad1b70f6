package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// crash is what is known of an input that fails.
type crash struct {
	Input   string `json:"input,omitempty"`       // its file, from the module's root; "": it is in the target's code
	Bytes   int    `json:"input_bytes,omitempty"` // of its values
	FoundAs int    `json:"found_bytes,omitempty"` // before it was shrunk
	Replay  string `json:"replay,omitempty"`      // command that runs it again
	Failure string `json:"failure,omitempty"`
	Remark  string `json:"remark,omitempty"`

	name   string // of the input
	stored bool   // it is not new
	hung   bool   // Go's fuzzer has ended the execution
}

// newCrash takes what the fuzzer says, and what the process said that died, if it did.
func newCrash(t target, p progress, failure []string, died string) crash {
	if died != "" {
		failure = strings.Split(died, "\n")
	}
	c := crash{Failure: shown(failure), stored: p.stored, hung: strings.Contains(died, "panic: deadlocked!")}
	c.is(t, path.Base(p.crash))
	return c
}

// is names the input.
func (c *crash) is(t target, name string) {
	c.name = name
	c.Replay = fmt.Sprintf("go test -timeout 1m -run '^%s$/^%s$' ./%s", t.Name, name, t.folder())
	if _, err := os.Stat(filepath.Join(t.inputs(), name)); err == nil {
		c.Input = path.Join(t.folder(), "testdata/fuzz", t.Name, name)
	}
}

// replays is how often an input that failed is run alone to see it fail again.
const replays = 3

// examine runs the input alone, and makes it smaller if nobody has stored it.
func (r *runner) examine(ctx context.Context, t target, binary string, res *result) error {
	c := &res.crash
	r.meter.doing(t, "crashed, is run again")
	tr, err := r.newTrial(t, binary)
	if err != nil {
		return err
	}
	file := filepath.Join(t.inputs(), c.name)
	var in input
	if c.Input == "" {
		in = tr.seed(ctx, c.name)
	} else {
		var content []byte
		if content, err = os.ReadFile(file); err == nil {
			in, err = parseInput(content)
		}
	}
	if err != nil || len(in) == 0 {
		return err
	}
	c.Bytes, c.FoundAs = in.size(), in.size()
	which, f := -1, failure{}
	for n := 0; n < replays && which < 0 && err == nil; n++ {
		which, f, err = tr.first(ctx, []input{in}, r.hang, anyFailure)
	}
	switch {
	case c.Input == "" && (which < 0 || err != nil): // the target makes more of its input
		c.Bytes, c.FoundAs = 0, 0
		return ctx.Err()
	case err != nil:
		return err
	case which < 0 && c.hung:
		res.Crashes = 0
		c.Remark = fmt.Sprintf("an execution took %v when it was fuzzed, and less in each of %d runs alone: the machine may have been busy; the input is kept", r.hang, replays)
		return nil
	case which < 0:
		c.Remark = fmt.Sprintf("it does not fail in %d runs alone: what else the process had done, or the order of goroutines, matters", replays)
		return nil
	}
	c.Failure = f.text
	if c.stored && c.Input != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.shrink)
	defer cancel()
	start := time.Now()
	small, f := tr.shrink(ctx, in, f, func(size int) {
		r.meter.doing(t, fmt.Sprintf("crashed, shrinks the input: %d of %d bytes, %.0f s", size, c.FoundAs, time.Since(start).Seconds()))
	})
	c.Failure = f.text
	if small.equal(in) && c.Input != "" {
		return nil
	}
	name, err := small.store(t.inputs())
	if err != nil {
		return err
	}
	c.Bytes = small.size()
	if name != c.name {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	c.is(t, name)
	return nil
}
