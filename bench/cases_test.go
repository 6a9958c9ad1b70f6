package bench

import (
	"errors"
	"flag"
	"log/slog"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vfiouser/test/holdings"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Results are compared by name: a name that changes makes all earlier ones worthless.
func TestNamesAreStable(t *testing.T) {
	const golden = "testdata/names.txt"
	var names []string
	for _, l := range Limits() {
		names = append(names, "limit "+l.Name)
	}
	for _, c := range Cases() {
		set := "default"
		switch {
		case c.Quick && c.Full:
			t.Errorf("%s is both quick and full", c.Name)
		case c.Quick:
			set = "quick"
		case c.Full:
			set = "full"
		}
		names = append(names, set+" "+c.Name)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(strings.Join(names, "\n")+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for _, name := range names {
		if !slices.Contains(want, name) {
			t.Errorf("%s is new", name)
		}
	}
	for _, name := range want {
		if !slices.Contains(names, name) {
			t.Errorf("%s is gone", name)
		}
	}
}

// Every case and every limit can be set up, run for any number of operations, and leaves nothing.
func TestCases(t *testing.T) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if raceEnabled && (c.Full || large.MatchString(c.Name)) {
				t.Skip("takes long with the race detector, and is one like others")
			}
			once(t, c.Setup)
		})
	}
}

// large are cases with the most of everything.
var large = regexp.MustCompile(`=(65535|1000|1024|1048576)(/|$)`)

func TestLimits(t *testing.T) {
	for _, l := range Limits() {
		t.Run(l.Name, func(t *testing.T) { once(t, l.Setup) })
	}
}

func once(t *testing.T, setup func(*Env) (Subject, error)) {
	holdings.CheckLeaks(t)
	s := newSubject(t, setup)
	if (s.Run == nil) == (s.Gauge == nil) {
		t.Fatal("one of Run and Gauge must be set")
	}
	if s.Gauge != nil {
		value, unit, err := s.Gauge()
		if err != nil || value < 0 || unit == "" {
			t.Fatal(value, unit, err)
		}
		return
	}
	for _, n := range []int{1, 2, 5} {
		if err := s.Run(n); err != nil {
			t.Fatal(n, err)
		}
	}
	if s.Latency != nil {
		h := hdrhistogram.New(1, 60e9, 3)
		if err := s.Latency(7, h); err != nil {
			t.Fatal(err)
		}
		if h.TotalCount() != 7 {
			t.Errorf("%d latencies of 7 operations", h.TotalCount())
		}
	}
}

// newEnv is an Env on a thread of the test's own, which is given back at its end.
func newEnv(tb testing.TB) *Env {
	tb.Helper()
	runtime.LockOSThread()
	tb.Cleanup(runtime.UnlockOSThread)
	env, err := NewEnv(slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := env.Close(); err != nil {
			tb.Error(err)
		}
	})
	return env
}

// setUp skips what this machine lacks something for.
func setUp(tb testing.TB, env *Env, setup func(*Env) (Subject, error)) Subject {
	tb.Helper()
	s, err := setup(env)
	if errors.Is(err, ErrUnavailable) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// newSubject is a small one.
func newSubject(t *testing.T, setup func(*Env) (Subject, error)) Subject {
	t.Helper()
	env := newEnv(t)
	env.small = true
	return setUp(t, env, setup)
}

// free names layers, or parts of them, whose operations promise not to allocate. Of these the
// quick cases are looked at.
var free = []string{"codec/encode/", "codec/decode/", "translate/", "irq/trigger", "message/", "client/read",
	"nvme/null/", "nvme/mem/", "virtio-net/"}

// What allocates all the same, for the session or the command is set up by it once.
var allocates = []string{"codec/decode/version"}

func TestAllocations(t *testing.T) {
	for _, c := range Cases() {
		has := func(prefix string) bool { return strings.HasPrefix(c.Name, prefix) }
		if !c.Quick || !slices.ContainsFunc(free, has) || slices.ContainsFunc(allocates, has) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			s := newSubject(t, c.Setup)
			withoutAllocations(t, s)
		})
	}
}

func withoutAllocations(t *testing.T, s Subject) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates by itself")
	}
	// (Not testing.AllocsPerRun: it leaves one processor to a driver that waits for a worker.)
	const n = 2000
	least := uint64(math.MaxUint64) // the runtime's own goroutines allocate now and then
	for range 4 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := s.Run(n); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if least > n/100 {
		t.Errorf("%v allocations in %d operations", least, n)
	}
}
