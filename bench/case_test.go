package bench

import (
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

func TestNames(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9-]+(/[a-zA-Z0-9:,.-]+(=[a-zA-Z0-9:,.-]+)?)*$`)
	seen := map[string]bool{}
	for _, l := range Limits() {
		if seen[l.Name] || !form.MatchString(l.Name) {
			t.Errorf("limit %q: is there twice, or is no name", l.Name)
		}
		seen[l.Name] = true
	}
	for _, c := range Cases() {
		if c.Limit != "" && !seen[c.Limit] {
			t.Errorf("%s: there is no limit %q", c.Name, c.Limit)
		}
		if !form.MatchString(c.Name) {
			t.Errorf("case %q is no name", c.Name)
		}
	}
	names := map[string]bool{}
	for _, c := range Cases() {
		if names[c.Name] {
			t.Errorf("case %q is there twice", c.Name)
		}
		names[c.Name] = true
	}
}

func TestEnvPutsAllBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Skip("no affinity:", err)
	}
	env, err := NewEnv(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(env.DeviceCPUs, env.DriverCPU) {
		t.Error("the driver's CPU is a worker's", env.DriverCPU, env.DeviceCPUs)
	}
	if err := env.pin(len(before)*64 - 1); err == nil {
		t.Error("pinned to a CPU that is not there")
	}
	var order []int
	env.Cleanup(func() { order = append(order, 1) })
	env.Cleanup(func() { order = append(order, 2) })
	for range 2 { // the second has nothing to do
		if err := env.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(order, []int{2, 1}) {
		t.Error("cleanups in order", order)
	}
	if _, err := os.Stat(env.Dir); err == nil {
		t.Error("the folder is still there")
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Error("affinity", before, after, err)
	}
}

// One operation stalls; those that became due meanwhile have waited, and it is said.
func TestOpenLoopDoesNotOmit(t *testing.T) {
	clock := time.Unix(0, 0)
	now := func() time.Time {
		clock = clock.Add(time.Nanosecond)
		return clock
	}
	done := 0
	op := func() error {
		done++
		clock = clock.Add(100 * time.Nanosecond)
		if done == 10 {
			clock = clock.Add(10 * time.Microsecond)
		}
		return nil
	}
	h := hdrhistogram.New(1, 1e9, 3)
	if err := openLoopAt(200*time.Nanosecond, 100, h, op, now); err != nil {
		t.Fatal(err)
	}
	if h.TotalCount() != 100 {
		t.Error(h.TotalCount(), "are recorded")
	}
	if late := h.TotalCount() - countBelow(h, 1000); late < 50 {
		t.Error(late, "operations waited for the one that stalled")
	}
	if h.Min() < 100 || h.Min() > 110 {
		t.Error("the least is", h.Min())
	}
}

func countBelow(h *hdrhistogram.Histogram, value int64) (n int64) {
	for _, bar := range h.Distribution() {
		if bar.To < value {
			n += bar.Count
		}
	}
	return n
}

func TestRecordKeepsToTheRange(t *testing.T) {
	h := hdrhistogram.New(1, 1000, 2)
	for _, d := range []time.Duration{-5, 0, 5, 1 << 40} {
		record(h, d)
	}
	if h.TotalCount() != 4 {
		t.Error(h.TotalCount(), "of 4 are recorded")
	}
}

func TestEnvHasRoomForSockets(t *testing.T) {
	for length, fits := range map[int]bool{80: true, 81: true, 120: false} {
		long := t.TempDir()
		for len(long) < length {
			long += "/" + strings.Repeat("d", min(length-len(long), 50)-1)
		}
		if err := os.MkdirAll(long, 0o777); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", long)
		env, err := NewEnv(slog.New(slog.DiscardHandler))
		if (err == nil) != fits {
			t.Errorf("%s: %v", long, err)
		}
		if err == nil {
			fd, err := listen(devicePath(env, 1015))
			if err != nil {
				t.Error(long, err)
			}
			unix.Close(fd)
			env.Close()
		}
		if left, _ := os.ReadDir(long); len(left) > 0 {
			t.Error("it left", left)
		}
	}
}
