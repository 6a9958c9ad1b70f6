package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vfiouser/test/transcript"
)

const (
	setupTimeout  = 10 * time.Minute
	bootTimeout   = time.Minute
	scriptTimeout = 2 * time.Minute
)

// scratch is the folder of this test process; TestMain removes it.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "vfu"); err != nil { // (short: socket paths are limited)
			panic(err)
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}())
}

// lab returns the lab. Where there can be none the test is skipped, unless it is demanded
// by CI=true or VFIOUSER_GUEST=require.
func lab(t *testing.T) *Lab {
	t.Helper()
	if testing.Short() {
		unavailable(t, "the guest suite takes minutes: not with -short")
	}
	ctx, cancel := timeout(t, setupTimeout)
	defer cancel()
	var progress transcript.Buffer
	l, err := Open(ctx, &progress)
	if errors.Is(err, ErrUnavailable) {
		unavailable(t, err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	return l
}

// unavailable skips the test, or fails it if the suite is demanded.
func unavailable(t *testing.T, why any) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv("VFIOUSER_GUEST") == "require" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// boot starts a guest, which is killed at the end of the test if it still runs then. At
// that time its console must show no complaint about a device. When the test fails the
// console and the kernel log are shown.
func boot(t *testing.T, cfg Config) *Guest {
	t.Helper()
	l := lab(t)
	ctx, cancel := timeout(t, bootTimeout)
	defer cancel()
	started := time.Now()
	g, err := l.Boot(ctx, cfg)
	if err != nil {
		t.Fatalf("boot: %v", err)
	}
	t.Logf("guest up after %v", time.Since(started).Round(100*time.Millisecond))
	t.Cleanup(func() {
		defer g.Close()
		if found := complaints(g.Console()); found != nil {
			t.Errorf("the guest complains: %s", found[0])
		}
		if !t.Failed() {
			return
		}
		t.Logf("guest console:\n%s", g.Console())
		if g.Running() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			log, err := g.Run(ctx, "dmesg | tail -n 60")
			t.Logf("guest kernel log (%v):\n%s", err, log)
		}
	})
	return g
}

var (
	// QEMU's messages, and the kernel's warnings and errors that can be about a device.
	// (Others are about the clocks of an emulated machine on a busy host.)
	complaint = regexp.MustCompile(`^qemu-system` +
		`|^\[ *\d+\.\d+\].*(nvme|pci|virtio|NETDEV|vfio|irq \d+: nobody|DMA|I/O error|EXT4|JBD2` +
		`|BUG|WARNING|Oops|Call Trace|hung|blocked for more|[Tt]ime-?out|timed out)`)
	// Of those, what announces something that the test did.
	harmless = regexp.MustCompile(`nvme nvme\d+: resetting controller`)
)

// complaints picks out of a console what is wrong with a device.
func complaints(console string) []string {
	var found []string
	for line := range strings.Lines(console) {
		line = strings.TrimSpace(line)
		if complaint.MatchString(line) && !harmless.MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

// run runs a script in the guest and returns what it prints. Each command must succeed.
func run(t *testing.T, g *Guest, script string) string {
	t.Helper()
	ctx, cancel := timeout(t, scriptTimeout)
	defer cancel()
	output, err := g.Run(ctx, "set -e\n"+script)
	if err != nil {
		t.Fatalf("%v\nscript: %s", err, script)
	}
	return output
}

// runJSON runs a script in the guest and decodes what it prints.
func runJSON(t *testing.T, g *Guest, script string, v any) {
	t.Helper()
	output := run(t, g, script)
	if err := json.Unmarshal([]byte(output), v); err != nil {
		t.Fatalf("%v\nscript: %s\noutput: %s", err, script, output)
	}
}

// powerOff has the guest shut its devices down and end.
func powerOff(t *testing.T, g *Guest) {
	t.Helper()
	ctx, cancel := timeout(t, bootTimeout)
	defer cancel()
	if err := g.PowerOff(ctx); err != nil {
		t.Fatalf("power off: %v\nconsole:\n%s", err, g.Console())
	}
}

// timeout ends with the test, or earlier.
func timeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not done after %v", d))
}

// eventually waits until check gives no error, and reports the last one after some seconds.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// exists waits until there is a file at path.
func exists(t *testing.T, path string) {
	t.Helper()
	eventually(t, func() error {
		_, err := os.Lstat(path)
		return err
	})
}

// buildCommand builds the vfu command once and returns its path.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(scratch, "vfu")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "vfiouser/cmd/vfu").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return path
}
