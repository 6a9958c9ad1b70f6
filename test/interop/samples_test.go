package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/test/transcript"
)

const samplesEnv = "VFIOUSER_SAMPLES"

const (
	startTimeout = 10 * time.Second
	callTimeout  = 10 * time.Second
)

// sample returns the path of one of libvfio-user's built samples.
func sample(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(samplesEnv)
	if dir == "" {
		t.Skipf("%s does not name the folder of libvfio-user's built samples", samplesEnv)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s: %v", samplesEnv, err)
	}
	return path
}

// process is a program of libvfio-user's that runs during a test.
type process struct {
	cmd    *exec.Cmd
	output *transcript.Buffer
	ended  chan struct{}
	err    error // how it ended, after ended
}

// launch starts a program, which is killed at the end of the test if it still runs then.
// Its standard input stays open until then: the sample null ends with it.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, output: new(transcript.Buffer), ended: make(chan struct{})}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // (with what it has started)
		<-p.ended
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(cmd.Path), p.output)
		}
	})
	return p
}

// waitFor waits until the program has printed text.
func (p *process) waitFor(t *testing.T, text string) {
	t.Helper()
	ctx := short(t)
	for !strings.Contains(p.output.String(), text) {
		select {
		case <-p.ended:
			t.Fatalf("the program has ended before it printed %q: %v", text, p.err)
		case <-ctx.Done():
			t.Fatalf("the program has not printed %q: %v", text, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// serveSample starts a sample server and attaches to it.
func serveSample(t *testing.T, name string, args ...string) (*process, *client.Device) {
	t.Helper()
	return serveSampleWith(t, name, nil, args...)
}

// serveSampleWith is serveSample with options for the client.
func serveSampleWith(t *testing.T, name string, opts []client.Option, args ...string) (*process, *client.Device) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	p := launch(t, exec.Command(sample(t, name), append(args, socket)...))
	return p, attach(t, p, socket, opts...)
}

// attach attaches to a server that may still be starting. The device is closed at the end.
func attach(t *testing.T, p *process, socket string, opts ...client.Option) *client.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for {
		dev, err := client.Attach(ctx, socket, opts...)
		if err == nil {
			t.Cleanup(func() { dev.Close() })
			return dev
		}
		select {
		case <-p.ended: // (nobody has spoken to it yet)
			t.Skipf("the server did not start: %v: %s", p.err, p.output)
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond): // (it is not known when the server listens)
		}
	}
}

// short is a context for a few calls.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), callTimeout, fmt.Errorf("not done after %v", callTimeout))
	t.Cleanup(cancel)
	return ctx
}

// check stops the test on an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
