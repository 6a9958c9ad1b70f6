package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"vfiouser/fuzz/internal/profile"
)

const (
	// shrinkTime bounds how long one input is shrunk, be it one that crashes or one that reached
	// something new. Go's default is a minute, in which nothing else is tried.
	shrinkTime = 200 * time.Millisecond

	// keptLines bounds what is kept of a failure.
	keptLines = 400
)

// result is what came of a target.
type result struct {
	Target     string         `json:"target"`
	Seconds    float64        `json:"seconds"`
	Executions int            `json:"executions"`
	Rate       float64        `json:"executions_per_second"`
	Found      int            `json:"new"`
	Corpus     int            `json:"corpus"`
	Coverage   *profile.Count `json:"coverage,omitempty"` // nil: not measured
	Crashes    int            `json:"crashes"`
	Input      string         `json:"input,omitempty"`  // that crashes, from the module's root
	Replay     string         `json:"replay,omitempty"` // command that runs it again
	Failure    string         `json:"failure,omitempty"`
}

// fuzz runs a target for some time. It returns the failure of the fuzzer itself as an error;
// crashes are a result. show gets to know how it goes.
func (r *runner) fuzz(ctx context.Context, t target, binary string, show func(progress)) (result, error) {
	res := result{Target: t.String()}
	cmd := exec.CommandContext(ctx, binary,
		"-test.run=^$",
		"-test.fuzz=^"+t.Name+"$",
		"-test.fuzztime="+r.time.String(),
		"-test.fuzzminimizetime="+shrinkTime.String(),
		"-test.fuzzcachedir="+filepath.Join(r.cache, t.Package),
		"-test.parallel="+strconv.Itoa(r.parallel))
	cmd.Dir = t.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return res, err
	}
	cmd.Stderr = cmd.Stdout

	start := time.Now()
	if err := cmd.Start(); err != nil {
		return res, err
	}
	var (
		p       progress
		failure []string
		moved   = start // when executions were last seen to end
		lines   = bufio.NewScanner(out)
	)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before := p
		forUser := p.read(lines.Text())
		if forUser && len(failure) < keptLines {
			failure = append(failure, lines.Text())
		}
		if p.executions != before.executions || p.baseline != before.baseline || p.shrinking {
			moved = time.Now()
		}
		if time.Since(moved) > r.stall {
			// A worker that dies of this signal is to the fuzzer one that its input has killed,
			// and the fuzzer stores that input.
			signalChildren(cmd.Process.Pid, syscall.SIGQUIT)
			moved = time.Now()
		}
		show(p)
	}
	err = errors.Join(lines.Err(), cmd.Wait())

	res.Seconds = time.Since(start).Seconds()
	res.Executions, res.Found, res.Corpus = p.executions, p.found, p.corpus
	res.Rate = float64(p.executions) / res.Seconds
	switch {
	case p.crash != "":
		res.Crashes = 1
		res.Input = path.Join(t.folder(), "testdata/fuzz", p.crash)
		res.Replay = fmt.Sprintf("go test -timeout 1m -run '^%s$' ./%s", strings.Replace(p.crash, "/", "$/^", 1), t.folder())
		res.Failure = strings.Join(failure, "\n")
	case err == nil, p.cut, ctx.Err() != nil:
	default:
		return res, fmt.Errorf("%w\n%s", err, strings.Join(failure, "\n"))
	}
	return res, nil
}

// signalChildren sends a signal to the processes that a process has started. Those that are
// gone need none.
func signalChildren(pid int, sig syscall.Signal) {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return
	}
	for _, field := range strings.Fields(string(list)) {
		if child, err := strconv.Atoi(field); err == nil {
			_ = syscall.Kill(child, sig)
		}
	}
}
