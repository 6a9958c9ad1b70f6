package conformance_test

import (
	"errors"
	"flag"
	"fmt"
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
const leastCases = 300

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T) []conformance.Case {
	t.Helper()
	cases, err := conformance.Load()
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// TestConformance runs every case against a device of its own, or against the server at
// -socket.
func TestConformance(t *testing.T) {
	cases := load(t)
	if *socketFlag != "" {
		foreign(t, cases)
		return
	}
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	has := survey(t, e)
	for _, c := range cases {
		t.Run(c.File+"/"+c.Name, func(t *testing.T) {
			before := descriptors(t)
			b := newBed(t, e)
			err := c.Run(&conformance.Target{Dial: b.dial, Has: has})
			b.close()
			switch {
			case errors.Is(err, conformance.ErrSkipped):
				t.Skip(err)
			case err != nil:
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

func newBed(t *testing.T, e *engine.Engine) *bed {
	t.Helper()
	d, err := dut.New()
	if err != nil {
		t.Fatal(err)
	}
	ep, err := e.Register(filepath.Join(t.TempDir(), "s"), d)
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
func survey(t *testing.T, e *engine.Engine) map[string]uint64 {
	t.Helper()
	b := newBed(t, e)
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

// TestNothingIsSkippedHere: the device of package dut has all that the cases need.
func TestNothingIsSkippedHere(t *testing.T) {
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	has := survey(t, e)
	for _, c := range load(t) {
		for _, n := range c.Needs {
			if has[n.What] == 0 && has[n.What+".size"] == 0 {
				t.Error(fmt.Sprintf("%s.txt:%d: %s needs %s", c.File, c.Line, c.Name, n.What))
			}
		}
	}
}
