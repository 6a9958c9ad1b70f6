package nvmeconformance

import (
	"context"
	"flag"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/client"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

var (
	match  = flag.String("match", "", "run the checks whose name matches this regular expression")
	socket = flag.String("socket", "", "check the controller at this socket; its namespaces are overwritten")
)

func options(t *testing.T, d Doorbells) Options {
	t.Helper()
	o := Options{Doorbells: d}
	if *match != "" {
		o.Match = regexp.MustCompile(*match)
	}
	return o
}

// memory is a namespace in memory.
func memory(t *testing.T, size int64, blockSize int) nvme.Namespace {
	t.Helper()
	b, err := block.Memory(size)
	if err != nil {
		t.Fatal(err)
	}
	return nvme.Namespace{Backend: b, BlockSize: blockSize}
}

// subsystem has what a subsystem can have: a pool for namespaces, and a folder for what outlives
// the process.
func subsystem(t *testing.T, namespaces ...nvme.Namespace) *nvme.Subsystem {
	t.Helper()
	pool, err := block.OpenPool("mem:64M")
	if err != nil {
		t.Fatal(err)
	}
	s, err := nvme.NewSubsystem(nvme.SubsystemConfig{Serial: "conformance", Namespaces: namespaces, Pool: pool, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// serve serves a controller and attaches to it.
func serve(t *testing.T, cfg nvme.Config) *client.Device {
	t.Helper()
	holdings.CheckLeaks(t)
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close() })
	ctrl, err := nvme.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ctrl.Close() })
	ep, err := eng.Register(filepath.Join(t.TempDir(), "nvme"), ctrl)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ep.Close() })
	dev, err := client.Attach(t.Context(), ep.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// conform runs the suite and fails for each check that does.
func conform(t *testing.T, dev *client.Device, o Options) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	report, err := Run(ctx, dev, o, func(r Result) {
		switch {
		case r.Outcome == Failed:
			t.Errorf("%s: %s", r.Check.Name(), r.Detail)
		case testing.Verbose():
			t.Logf("%v %s: %s", r.Outcome, r.Check.Name(), r.Detail)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d checks passed, %d failed, %d do not apply", report.Count(Passed), report.Count(Failed), report.Count(Skipped))
	return report
}

// least is how many rules the suite must have checked on a controller that has everything.
const least = 500

// TestOurController runs the suite against this project's controller. The first one is to
// have everything.
func TestOurController(t *testing.T) {
	for i, c := range []struct {
		name   string
		bells  Doorbells
		least  int // checks that must have run
		config func(t *testing.T) nvme.Config
	}{
		{"full", Messages, least, func(t *testing.T) nvme.Config {
			checked := memory(t, 8<<20, 512)
			checked.Metadata, checked.Protection = 8, 1
			return nvme.Config{Subsystem: subsystem(t, memory(t, 64<<20, 512), memory(t, 64<<20, 4096), memory(t, 8<<20, 512), checked)}
		}},
		{"blocks of 4096, shadow doorbells, volatile cache, read-only namespace", Shadow, least, func(t *testing.T) nvme.Config {
			cached, fixed := memory(t, 64<<20, 4096), memory(t, 8<<20, 512)
			checked, separate := memory(t, 8<<20, 512), memory(t, 40<<20, 4096)
			checked.Metadata, checked.Extended, checked.Protection = 8, true, 1
			separate.Metadata = 16
			cached.Backend = &described{cached.Backend, func(i *block.Info) { i.VolatileCache = true }}
			fixed.Backend = &described{fixed.Backend, func(i *block.Info) { i.ReadOnly = true }}
			return nvme.Config{Namespaces: []nvme.Namespace{cached, fixed, checked, separate}}
		}},
		{"mapped doorbells, few queues, small transfers", Mapped, least, func(t *testing.T) nvme.Config {
			return nvme.Config{Namespaces: []nvme.Namespace{memory(t, 64<<20, 512)}, Doorbells: nvme.Mmap, IdlePoll: 100 * time.Microsecond, Queues: 4, QueueEntries: 64, MaxTransfer: 64 << 10}
		}},
		{"trapped doorbells, one queue, no namespace that can be written", Messages, 0, func(t *testing.T) nvme.Config {
			fixed := memory(t, 8<<20, 512)
			fixed.Backend = &described{fixed.Backend, func(i *block.Info) { i.ReadOnly = true }}
			return nvme.Config{Namespaces: []nvme.Namespace{fixed}, Doorbells: nvme.Trap, Queues: 1}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, c.bells)
			if i > 0 {
				o.Skip = regexp.MustCompile("Self-test") // they take time, and once is enough
			}
			report := conform(t, serve(t, c.config(t)), o)
			if n := report.Count(Passed) + report.Count(Failed); *match == "" && n < c.least {
				t.Errorf("%d checks ran, must be %d at least", n, c.least)
			}
		})
	}
}

// described is a backend that says something else of itself.
type described struct {
	block.Backend
	change func(*block.Info)
}

func (d *described) Info() block.Info {
	i := d.Backend.Info()
	d.change(&i)
	return i
}

// A rule is checked once, and known by its name.
func TestNamesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Checks() {
		if seen[c.Name()] {
			t.Errorf("two checks are named %q", c.Name())
		}
		seen[c.Name()] = true
	}
	t.Logf("%d checks", len(seen))
}

func TestAnotherController(t *testing.T) {
	if *socket == "" {
		t.Skip("no -socket")
	}
	dev, err := client.Attach(t.Context(), *socket)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	conform(t, dev, options(t, Messages))
}
