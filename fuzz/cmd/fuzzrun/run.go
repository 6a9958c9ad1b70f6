package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vfiouser/fuzz/internal/profile"
)

const (
	// Go's fuzzer is not to make inputs smaller: be it one that crashes or only one that reached
	// something new, it does nothing else for the time that it is given, and ends the process if
	// it takes longer. Where coverage depends on goroutines that is mostly in vain.
	minimizeTime = "0"

	// hangLimit is how long Go's fuzzer lets an execution last. Then the process has to end itself;
	// if it is not even able to, it is ended after another graceTime, in which also other things
	// have to be done that follow.
	hangLimit = 10 * time.Second
	graceTime = 3 * time.Second

	watchTime = 50 * time.Millisecond // how often processes are looked at
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
	crash
}

// fuzz runs a target for some time. It returns the failure of the fuzzer itself as an error;
// crashes are a result. show gets to know how it goes.
func (r *runner) fuzz(ctx context.Context, t target, binary string, show func(progress)) (result, error) {
	res := result{Target: t.String()}
	temp, err := os.MkdirTemp(r.temp, "run")
	if err != nil {
		return res, err
	}
	if temp, err = filepath.EvalSymlinks(temp); err != nil {
		return res, err
	}
	died := filepath.Join(temp, "died")
	// There is no -test.fuzztime: at its end Go would drop an execution that hangs.
	cmd := exec.Command(binary,
		"-test.run=^$",
		"-test.fuzz=^"+t.Name+"$",
		"-test.fuzzminimizetime="+minimizeTime,
		"-test.fuzzcachedir="+filepath.Join(r.cache, t.Package),
		"-test.parallel="+strconv.Itoa(r.parallel))
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, "GOTRACEBACK=all", diedVariable+"="+died)
	apart(cmd)
	out, w, err := os.Pipe()
	if err != nil {
		return res, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = w, w
	start := time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		return res, err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		read := bufio.NewScanner(out)
		read.Buffer(nil, 1<<20)
		for read.Scan() {
			lines <- read.Text()
		}
	}()
	p, failure := r.follow(ctx, lines, &watch{fuzzer: cmd.Process.Pid, folder: temp}, start, show)
	err = cmd.Wait()

	res.Seconds = time.Since(start).Seconds()
	res.Executions, res.Found, res.Corpus = p.executions, p.found, p.corpus
	res.Rate = float64(p.executions) / res.Seconds
	switch {
	case p.crash != "":
		res.Crashes = 1
		text, _ := os.ReadFile(died) // there is none if the process has not died
		res.crash = newCrash(t, p, failure, string(text))
	case err != nil && !p.cut && ctx.Err() == nil:
		return res, fmt.Errorf("%w\n%s", err, strings.Join(failure, "\n"))
	}
	return res, nil
}

// follow reads what the fuzzer prints until it ends, and makes it end when it is time.
func (r *runner) follow(ctx context.Context, lines <-chan string, w *watch, start time.Time, show func(progress)) (p progress, failure []string) {
	end := start.Add(r.time)
	over := false
	interrupt := func() {
		if !over {
			over = true
			_ = syscall.Kill(w.fuzzer, syscall.SIGINT) // unless it has ended
		}
	}
	kill := func() { _ = syscall.Kill(-w.fuzzer, syscall.SIGKILL) }
	ticks := time.NewTicker(watchTime)
	defer ticks.Stop()
	cancelled := ctx.Done()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return p, failure
			}
			if p.read(line) && len(failure) < keptLines {
				failure = append(failure, line)
			}
			show(p)
		case <-cancelled:
			cancelled = nil
			interrupt()
			defer time.AfterFunc(r.hang, kill).Stop()
		case now := <-ticks.C:
			w.look(now)
			w.quit(now, r.hang+graceTime)
			if now.After(end) && w.movedSince(end, now) || now.After(end.Add(r.hang+3*graceTime)) {
				interrupt()
			}
		}
	}
}

// apart keeps a terminal's Ctrl-C from a command, which is ended in order.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// diedVariable names in the environment the file that a process that dies says why in. Go's fuzzer
// throws away what its processes print.
const diedVariable = "FUZZRUN_DIED"

// witness is added to the tests of a package that is fuzzed.
const witness = `package %s

import (
	"os"
	"runtime/debug"
)

func init() {
	f, err := os.OpenFile(os.Getenv(%q), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_ = debug.SetCrashOutput(f, debug.CrashOptions{})
}
`

// overlay makes a file that has go build add the witness to a package.
func (r *runner) overlay(t target) (name string, err error) {
	source := filepath.Join(r.temp, "witness.go")
	name = filepath.Join(r.temp, "overlay.json")
	list := fmt.Sprintf(`{"Replace":{%q:%q}}`, filepath.Join(t.dir, "fuzzrun_witness_test.go"), source)
	return name, errors.Join(
		os.WriteFile(source, fmt.Appendf(nil, witness, t.packageName, diedVariable), 0o600),
		os.WriteFile(name, []byte(list), 0o600))
}
