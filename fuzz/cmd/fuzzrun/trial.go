package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"vfiouser/fuzz/choice"
)

// trial runs inputs of a target without the fuzzer, one after another, as go test runs those that
// are stored. So it can be said why one ends its process, and that one can be shrunk.
type trial struct {
	name   string // of the target
	binary string
	folder string        // is to the tests like the package's, but has no inputs
	temp   string        // for what the tests leave
	hang   time.Duration // that an execution may take
	marks  string        // file for what choice.MarksVariable asks for; "": none
}

func (r *runner) newTrial(t target, binary string) (*trial, error) {
	root, err := os.MkdirTemp(r.temp, "trial")
	if err != nil {
		return nil, err
	}
	folder, err := mirror(root, t)
	return &trial{name: t.Name, binary: binary, folder: folder, temp: r.temp, hang: r.hang}, err
}

// anyFailure is for failures that all matter.
func anyFailure(failure) bool { return true }

// first runs inputs until one of them fails so that it matters, and returns which; -1 if none
// does. One that has not ended within limit has failed. Of several inputs one that only logs
// something may be taken for one that fails, if that matters.
func (tr *trial) first(ctx context.Context, ins []input, limit time.Duration, matters func(failure) bool) (which int, f failure, err error) {
	for next := 0; next < len(ins); {
		r, err := tr.process(ctx, ins, next, limit, matters)
		switch {
		case err != nil:
			return -1, failure{}, err
		case r.failed || r.hung.Load():
			if f := r.failure(); matters(f) {
				return r.last, f, nil
			}
		case r.dying:
			// A goroutine may have taken its time to end the process.
			for _, which := range []int{r.last, r.last - 1} {
				if which < next {
					break
				}
				alone, err := tr.process(ctx, []input{ins[which], ins[which]}, 0, limit, matters)
				if err != nil {
					return -1, failure{}, err
				}
				if f := alone.failure(); (alone.failed || alone.dying) && matters(f) {
					return which, f, nil
				}
			}
		default:
			return -1, failure{}, nil
		}
		next = r.last + 1
	}
	return -1, failure{}, nil
}

// process runs the inputs from next on in one process, until one fails so that it matters or ends
// the process.
func (tr *trial) process(ctx context.Context, ins []input, next int, limit time.Duration, matters func(failure) bool) (*reading, error) {
	if err := tr.put(ins, next); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, tr.binary, "-test.run=^"+tr.name+"$/^try", "-test.v", "-test.timeout=0")
	cmd.Dir = tr.folder
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all", "TMPDIR="+tr.temp)
	if tr.marks != "" {
		cmd.Env = append(cmd.Env, choice.MarksVariable+"="+tr.marks)
	}
	apart(cmd)
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	r := &reading{last: -1, limit: limit, matters: matters}
	r.all(out, cmd.Process)
	_ = cmd.Process.Kill() // it has ended, unless a failure is all that is wanted of it
	_ = cmd.Wait()
	if r.ended && !r.failed && (r.open || cmd.ProcessState.ExitCode()&^1 != 0) {
		r.dying = true // without a word, perhaps
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case r.last < 0:
		return nil, fmt.Errorf("%s does not run its inputs:\n%s", tr.name, r.failure().text)
	}
	return r, nil
}

// put stores the inputs from next on where the target finds them.
func (tr *trial) put(ins []input, next int) error {
	folder := filepath.Join(tr.folder, "testdata", "fuzz", tr.name)
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i := next; i < len(ins); i++ {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("try%06d", i)), ins[i].marshal(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// reading is what is known from what a process prints.
type reading struct {
	limit   time.Duration
	matters func(failure) bool

	last   int  // the input that was begun last; -1: none
	open   bool // it has no result yet
	failed bool // it has failed
	hung   atomic.Bool
	dying  bool // the process, of something else than a test that fails
	ended  bool // the process
	begun  time.Time
	took   time.Duration
	lines  []string // of the input
}

var (
	runLine   = regexp.MustCompile(`^\s*=== RUN\s+\S+/try(\d+)$`)
	endLine   = regexp.MustCompile(`^\s*--- (FAIL|PASS|SKIP): \S+/try(\d+) `)
	otherLine = regexp.MustCompile(`^\s*(=== |--- (PASS|FAIL|SKIP): |FAIL$|PASS$|exit status \d+$)`)
)

const (
	startLimit = time.Minute     // until the first input begins
	quitLimit  = 5 * time.Second // for a process that hangs to say where
)

// all reads until the process ends or a failure matters.
func (r *reading) all(out *os.File, process *os.Process) {
	alarm := time.AfterFunc(startLimit, func() {
		r.hung.Store(true)
		_ = process.Signal(syscall.SIGQUIT) // shows the goroutines
	})
	defer alarm.Stop()
	kill := time.AfterFunc(startLimit+quitLimit, func() { _ = process.Kill() })
	defer kill.Stop()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := runLine.FindStringSubmatch(line); m != nil && !r.dying {
			// Results are told after all inputs. A test that fails says so before, and where.
			r.took = time.Since(r.begun)
			if r.last >= 0 && r.says() && r.matters(r.failure()) {
				r.failed = true
				return
			}
			alarm.Reset(r.limit)
			kill.Reset(r.limit + quitLimit)
			r.last, _ = strconv.Atoi(m[1])
			r.open, r.failed, r.begun, r.took, r.lines = true, false, time.Now(), 0, nil
			continue
		}
		if m := endLine.FindStringSubmatch(line); m != nil {
			// The text of a panic follows the result, and so do the results of inputs before.
			if n, _ := strconv.Atoi(m[2]); n == r.last && !r.dying {
				r.open, r.failed, r.took = false, m[1] == "FAIL", time.Since(r.begun)
			}
			continue
		}
		r.dying = r.dying || !r.failed && fatalLine.MatchString(line)
		if len(r.lines) < keptLines && !otherLine.MatchString(line) {
			r.lines = append(r.lines, line)
		}
	}
	r.ended = true
	if r.took == 0 {
		r.took = time.Since(r.begun)
	}
}

// says tells whether the input may have failed.
func (r *reading) says() bool { return slices.ContainsFunc(r.lines, testLine.MatchString) }

func (r *reading) failure() failure {
	return newFailure(r.lines, r.hung.Load() || r.took > slowFailure)
}
