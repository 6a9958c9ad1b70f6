package conformance_test

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vfiouser/engine"
	"vfiouser/test/conformance"
	"vfiouser/test/conformance/dut"
)

var socketFlag = flag.String("socket", os.Getenv("VFIOUSER_CONFORMANCE_SOCKET"), "run against the server at this unix socket")

// leastCases is how many cases there must be, so that none gets lost.
const leastCases = 1000

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T) []conformance.Case {
	t.Helper()
	cases, err := conformance.Load()
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// variant is an engine with devices of one kind. Each case runs on the first that has what
// it needs.
type variant struct {
	engine *engine.Engine
	shape  func(*dut.Device) engine.Device
	has    map[string]uint64
}

// variants makes them.
func variants(t *testing.T) []*variant {
	t.Helper()
	var all []*variant
	full := func(d *dut.Device) engine.Device { return d }
	for _, v := range []struct {
		cfg   engine.Config
		shape func(*dut.Device) engine.Device
		has   map[string]uint64
	}{
		{engine.Config{WriteMultiple: true}, full, nil},
		{engine.Config{NoTwinSocket: true}, (*dut.Device).Plain, nil},
		{engine.Config{}, (*dut.Device).StopCopy, nil},
		{engine.Config{DMATimeout: 20 * time.Millisecond}, full, map[string]uint64{"dma_timeout": 1}},
	} {
		v.cfg.Workers = 1
		v.cfg.NegotiateTimeout = time.Minute // nobody is dropped for that here
		e, err := engine.New(v.cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		one := &variant{engine: e, shape: v.shape}
		one.has = survey(t, one)
		maps.Copy(one.has, v.has)
		all = append(all, one)
	}
	return all
}

// fit finds the variant for a case.
func fit(c conformance.Case, all []*variant) *variant {
	for _, v := range all {
		if c.Lacks(v.has) == nil {
			return v
		}
	}
	return nil
}

// TestConformance runs every case against a device of its own, or against the server at
// -socket.
func TestConformance(t *testing.T) {
	cases := load(t)
	if *socketFlag != "" {
		foreign(t, cases)
		return
	}
	all := variants(t)
	for _, c := range cases {
		t.Run(c.File+"/"+c.Name, func(t *testing.T) {
			v := fit(c, all)
			if v == nil {
				t.Fatalf("%s.txt:%d: no device has what it needs: %v", c.File, c.Line, c.Lacks(all[0].has))
			}
			before := descriptors(t)
			b := newBed(t, v)
			err := c.Run(&conformance.Target{Dial: b.dial, Has: v.has})
			b.close()
			if err != nil {
				t.Errorf("%s: %s\n%v", c.Section, c.Rule, err)
			}
			eventually(t, "the server keeps descriptors", func() bool { return descriptors(t) <= before })
		})
	}
}

// foreign runs all cases against one device.
func foreign(t *testing.T, cases []conformance.Case) {
	dial := func() (int, error) { return conformance.DialUnix(*socketFlag) }
	has, err := conformance.Survey(dial, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.File+"/"+c.Name, func(t *testing.T) {
			switch err := c.Run(&conformance.Target{Dial: dial, Has: has}); {
			case errors.Is(err, conformance.ErrSkipped):
				t.Skip(err)
			case err != nil:
				t.Errorf("%s: %s\n%v", c.Section, c.Rule, err)
			}
		})
	}
}

// bed is a new device with an endpoint.
type bed struct {
	t      *testing.T
	device *dut.Device
	ep     *engine.Endpoint
}

func newBed(t *testing.T, v *variant) *bed {
	t.Helper()
	d, err := dut.New()
	if err != nil {
		t.Fatal(err)
	}
	ep, err := v.engine.Register(filepath.Join(t.TempDir(), "s"), v.shape(d))
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &bed{t, d, ep}
}

func (b *bed) dial() (int, error) { return conformance.DialUnix(b.ep.Path()) }

func (b *bed) close() {
	if err := b.ep.Close(); err != nil {
		b.t.Error(err)
	}
	b.device.Close()
}

// survey asks a device of its own; the cases find the same in theirs.
func survey(t *testing.T, v *variant) map[string]uint64 {
	t.Helper()
	b := newBed(t, v)
	defer b.close()
	has, err := conformance.Survey(b.dial, dut.Roles)
	if err != nil {
		t.Fatal(err)
	}
	has["fresh"] = 1
	return has
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		time.Sleep(time.Millisecond) // polls
	}
}

func TestThereAreEnoughCases(t *testing.T) {
	if n := len(load(t)); n < leastCases {
		t.Errorf("%d cases, want %d", n, leastCases)
	}
}
