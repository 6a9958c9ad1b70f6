// Command fuzzrun runs the module's fuzz targets one after another and says what each executed,
// found, covers and crashed with. It finds the targets by itself. Its exit status is 1 if
// something crashed, 2 if something could not be run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// runner is how targets are run.
type runner struct {
	time     time.Duration // for each target
	shrink   time.Duration // at most, for an input that crashes
	hang     time.Duration // that an execution may take
	parallel int           // processes that fuzz
	measure  bool          // coverage
	root     string        // the module's folder
	cache    string        // where Go's fuzzer keeps inputs, a folder for each package
	temp     string
	meter    meter
}

func main() {
	var (
		r    = runner{hang: hangLimit, meter: newMeter(os.Stderr)}
		only string
		raw  bool
		list bool
	)
	flag.DurationVar(&r.time, "time", 10*time.Second, "how long each target is fuzzed")
	flag.DurationVar(&r.shrink, "shrink", time.Minute, "how long an input that crashes is made smaller, at most")
	flag.IntVar(&r.parallel, "parallel", runtime.NumCPU(), "number of processes that fuzz a target")
	flag.StringVar(&only, "only", "", "regular expression: targets to run, as FuzzHeader or codec/FuzzHeader")
	flag.BoolVar(&raw, "json", false, "print the results as JSON instead of a table")
	flag.BoolVar(&list, "list", false, "run nothing, say what the targets check")
	flag.BoolVar(&r.measure, "coverage", true, "measure what the inputs cover")
	flag.Parse()
	if flag.NArg() > 0 || r.time <= 0 || r.parallel < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if list {
		if err := listTargets(os.Stdout, only); err != nil {
			fmt.Fprintln(os.Stderr, "fuzzrun:", err)
			os.Exit(2)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := r.ofModule(ctx, only)
	if raw {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		err = errors.Join(err, out.Encode(results))
	} else if len(results) > 0 {
		err = errors.Join(err, table(os.Stdout, results))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzrun:", err)
		os.Exit(2)
	}
	if slices.ContainsFunc(results, func(r result) bool { return r.Crashes > 0 }) {
		os.Exit(1)
	}
}

// ofModule runs all targets, with the inputs that Go's fuzzer keeps in its cache.
func (r *runner) ofModule(ctx context.Context, only string) ([]result, error) {
	cache, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
	if err != nil {
		return nil, describe("go env", err)
	}
	r.cache = filepath.Join(strings.TrimSpace(string(cache)), "fuzz")
	return r.all(ctx, only)
}

// all runs the targets that match. What came of those that ran is returned with an error too.
func (r *runner) all(ctx context.Context, only string) (results []result, err error) {
	found, root, err := matching(only)
	if err != nil {
		return nil, err
	}
	r.root = root
	if r.temp, err = os.MkdirTemp("", "fuzzrun"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(r.temp)

	for len(found) > 0 {
		// The targets of a package share its binaries.
		n := slices.IndexFunc(found, func(t target) bool { return t.Package != found[0].Package })
		if n < 0 {
			n = len(found)
		}
		some, failed := r.ofPackage(ctx, found[:n])
		results, err = append(results, some...), errors.Join(err, failed)
		if ctx.Err() != nil {
			return results, errors.Join(err, errors.New("interrupted"))
		}
		found = found[n:]
	}
	return results, err
}

// ofPackage runs targets of one package. A target that cannot be run does not keep the others.
func (r *runner) ofPackage(ctx context.Context, ts []target) (results []result, err error) {
	r.meter.doing(ts[0], "compiles")
	defer r.meter.clear()
	fuzzing, covering := filepath.Join(r.temp, "fuzz.test"), filepath.Join(r.temp, "coverage.test")
	overlay, err := r.overlay(ts[0])
	if err != nil {
		return nil, err
	}
	if err := r.build(ctx, fuzzing, ts[0].Package, "-fuzz=.", "-overlay="+overlay); err != nil {
		return nil, err
	}
	if r.measure {
		if err := r.build(ctx, covering, ts[0].Package, "-cover", "-coverpkg="+coverPatterns(ts)); err != nil {
			return nil, err
		}
	}
	for _, t := range ts {
		res, failed := r.fuzz(ctx, t, fuzzing, func(p progress) { r.meter.progress(t, p) })
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", t, failed))
			continue
		}
		if res.crash.name != "" && ctx.Err() == nil {
			if failed := r.examine(ctx, t, fuzzing, &res); failed != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", t, failed))
			}
		}
		if r.measure && ctx.Err() == nil {
			r.meter.doing(t, "measures coverage")
			count, failed := r.coverage(ctx, t, covering, res.crash.name)
			if failed != nil && res.Crashes > 0 {
				// That was to be expected of a seed that crashes.
			} else if failed != nil {
				err = errors.Join(err, fmt.Errorf("%s: coverage: %w", t, failed))
			} else {
				res.Coverage = &count
			}
		}
		r.meter.done(res)
		results = append(results, res)
		if ctx.Err() != nil {
			break
		}
	}
	return results, err
}

// coverPatterns are the packages that a binary has to count in for the coverage of all targets.
func coverPatterns(ts []target) string {
	var patterns []string
	for _, t := range ts {
		patterns = append(patterns, t.coverPackages()...)
	}
	slices.Sort(patterns)
	return strings.Join(slices.Compact(patterns), ",")
}

// build compiles a package's tests.
func (r *runner) build(ctx context.Context, binary, importPath string, flags ...string) error {
	args := append([]string{"test", "-c", "-o", binary}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, importPath)...)
	cmd.Dir = r.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c %s: %w\n%s", importPath, err, out)
	}
	return nil
}
