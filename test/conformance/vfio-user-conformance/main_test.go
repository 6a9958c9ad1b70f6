package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vfiouser/engine"
	"vfiouser/test/conformance/dut"
)

// serveEnv makes the test binary a server: it serves a device on the socket that is its
// last argument, until it is killed.
const serveEnv = "CONFORMANCE_TEST_SERVES"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) == "" {
		os.Exit(m.Run())
	}
	_, _, err := serve(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func serve(path string) (*engine.Engine, *dut.Device, error) {
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		return nil, nil, err
	}
	d, err := dut.New()
	if err != nil {
		return nil, nil, err
	}
	ep, err := e.Register(path, d)
	if err == nil {
		err = ep.Start()
	}
	return e, d, err
}

// run runs cases and returns what was printed.
func run(t *testing.T, o options, cases string) (failed int, out string, err error) {
	t.Helper()
	var b strings.Builder
	o.out, o.run, o.roles = &b, regexp.MustCompile(cases), dut.Roles
	failed, err = o.main()
	return failed, b.String(), err
}

func TestAgainstASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	e, d, err := serve(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	defer e.Close()
	failed, out, err := run(t, options{socket: path, verbose: true}, "^(irqs|reset)/")
	if err != nil || failed > 0 {
		t.Fatalf("%d failed, %v\n%s", failed, err, out)
	}
	for _, want := range []string{
		"ok    irqs/NONE|MASK on INTX\n",
		"skip  reset/a device that cannot be reset says so: skipped: needs no_reset 1, the device has 0\n",
		" passed, 0 failed, 2 skipped\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestAServerForEachCase(t *testing.T) {
	t.Setenv(serveEnv, "1")
	failed, out, err := run(t, options{serve: os.Args[0] + " {}"}, "^reset/the device is as it was")
	if err != nil || failed > 0 || out != "1 passed, 0 failed, 0 skipped\n" {
		t.Fatalf("%d failed, %v\n%s", failed, err, out)
	}
}

func TestListNeedsNoServer(t *testing.T) {
	_, out, err := run(t, options{list: true}, "^reset/RESET has")
	want := "reset/RESET has no payload either way\n\tVFIO_USER_DEVICE_RESET: neither the request or reply have a payload\n"
	if err != nil || out != want {
		t.Errorf("%v\n%s", err, out)
	}
}

// A server that hangs up at once is an error of the survey, not a device without anything.
func TestNoServerIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	if _, out, err := run(t, options{socket: path}, ""); err == nil || !strings.Contains(err.Error(), "survey: VERSION") {
		t.Errorf("%v\n%s", err, out)
	}
}
