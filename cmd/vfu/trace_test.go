package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// traced starts vfu trace and waits until clients may come.
func traced(t testing.TB, args ...string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	cmd = command(t, append([]string{"trace"}, args...)...)
	out = new(bytes.Buffer)
	cmd.Stdout = out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewReader(stderr)
	ready, err := lines.ReadString('\n')
	if err != nil || !strings.HasPrefix(ready, "ready: ") {
		t.Fatalf("not ready: %q %v", ready, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return cmd, out
}

// run runs vfu to its end.
func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := command(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// readWrite does I/O on a disk, two times attached.
func readWrite(t *testing.T, socket string) {
	t.Helper()
	for _, text := range []string{"first", "second"} {
		ns, detach := disk(t, socket)
		got := make([]byte, len(text))
		if _, err := ns.WriteAt([]byte(text), 4096); err != nil {
			t.Error(err)
		}
		if _, err := ns.ReadAt(got, 4096); err != nil || string(got) != text {
			t.Errorf("read %q, %v", got, err)
		}
		detach()
	}
}

func TestTraceOfADisk(t *testing.T) {
	dir := t.TempDir()
	a, b, file := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "recording")
	server := command(t, "serve", "nvme", "--socket", b, "--namespace", "mem:16M")
	serve(t, server)
	tracer, out := traced(t, "--listen", a, "--connect", b, "--write", file, "--summary")
	readWrite(t, a)
	terminate(t, tracer)
	terminate(t, server)
	for _, part := range []string{
		" > client connects: session 1\n", " > client connects: session 2\n",
		" > VERSION #", " < VERSION #", " [memfd 8MiB]\n",
		" REGION_READ #", " reply BAR0+0x1c 4 bytes 01 00 00 00 (",
		"SET_IRQS #", "EVENTFD|TRIGGER [eventfd]", " > client hangs up: session 2\n",
		"      REGION_READ  ",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the trace lacks %q", part)
		}
	}
	if t.Failed() {
		t.Log(out)
	}

	t.Run("printed", func(t *testing.T) {
		status, text, stderr := run(t, "trace", "--print", file, "--only", "set_irqs,DMA_MAP")
		if status != 0 || strings.Count(text, "DMA_MAP") != 4 || strings.Contains(text, "REGION_READ") {
			t.Errorf("status %d: %s%s", status, text, stderr)
		}
		status, text, stderr = run(t, "trace", "--print", file, "--json", "--summary")
		messages := 0
		for line := range strings.Lines(text) {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			if object["command"] != nil {
				messages++
			}
		}
		if status != 0 || messages < 50 || !strings.Contains(text, `{"summary":"VERSION",`) {
			t.Errorf("status %d, %d messages: %s", status, messages, stderr)
		}
		status, text, _ = run(t, "trace", "--print", file, "--quiet", "--summary")
		if status != 0 || strings.Contains(text, "#") || !strings.Contains(text, "GET_INFO") {
			t.Errorf("status %d: %s", status, text)
		}
	})
	t.Run("played against a fresh server", func(t *testing.T) {
		serve(t, command(t, "serve", "nvme", "--socket", b, "--namespace", "mem:16M"))
		status, text, stderr := run(t, "trace", "--replay", file, "--connect", b)
		if status != 0 || !strings.HasPrefix(text, "no difference: 2 sessions, ") {
			t.Errorf("status %d: %s%s", status, text, stderr)
		}
	})
	t.Run("played against a changed device", func(t *testing.T) {
		serve(t, command(t, "serve", "nvme", "--socket", filepath.Join(dir, "c"), "--namespace", "mem:16M", "--doorbells", "mmap"))
		status, text, stderr := run(t, "trace", "--replay", file, "--connect", filepath.Join(dir, "c"))
		want := "recorded: GET_REGION_INFO #"
		if status != 1 || text != "" || !strings.Contains(stderr, want) || !strings.Contains(stderr, "sparse 0x1000+0x1000 [memfd 16KiB]") {
			t.Errorf("status %d: %s%s", status, text, stderr)
		}
	})
}

func TestTraceSaysThatThereIsNoServer(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	cmd := command(t, "trace", "--listen", a, "--connect", b)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewReader(stderr)
	if line, err := lines.ReadString('\n'); err != nil || line != "ready: trace on "+a+" of the server at "+b+"\n" {
		t.Fatalf("%q, %v", line, err)
	}
	status, _, text := run(t, "trace", "--replay", os.DevNull, "--connect", a)
	if status != 1 || !strings.Contains(text, "not a recording") {
		t.Errorf("status %d: %s", status, text)
	}
	client := command(t, "trace", "--replay", sample(t), "--connect", a)
	_ = client.Run() // whatever it makes of that
	line, err := lines.ReadString('\n')
	if want := "vfu: trace: a client came, but no server answers at " + b + ": start one there, or correct --connect: "; err != nil || !strings.HasPrefix(line, want) {
		t.Errorf("%q, %v", line, err)
	}
	terminate(t, cmd)
}

// sample is a recording of a client that does nothing.
func sample(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample")
	text := `{"format":"vfu-trace","version":1,"endian":"little","start":"2026-01-02T03:04:05Z"}
{"t":0,"session":1,"from":"client","event":"connect"}
{"t":1,"session":1,"from":"client","event":"hangup"}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTraceMistakesAreExplained(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, args string
		status     int
		says       string
	}{
		{"nothing to do", "trace", 2, "give --listen and --connect"},
		{"listen only", "trace --listen " + dir + "/a", 2, "give --listen and --connect"},
		{"replay without server", "trace --replay x", 2, "--replay and --connect"},
		{"print and replay", "trace --print x --replay x", 2, "give --listen"},
		{"write in a replay", "trace --replay x --connect y --write z", 2, "give --listen"},
		{"unknown command", "trace --print x --only READ", 2, "REGION_READ"},
		{"no recording", "trace --print " + dir + "/none", 1, dir + "/none"},
		{"recording of nothing", "trace --print /dev/null", 1, "not a recording"},
		{"no file can be written", "trace --listen " + dir + "/a --connect b --write " + dir + "/no/file", 1, dir + "/no/file"},
		{"no socket can be made", "trace --listen " + dir + "/no/a --connect b", 1, "cannot listen on " + dir + "/no/a"},
		{"no patience", "trace --replay " + sample(t) + " --connect b --settle 0s", 2, "--settle"},
		{"patience for what does not wait", "trace --print x --settle 1s", 2, "--settle goes with --replay"},
		{"messages of a replay", "trace --replay x --connect b --json", 2, "--print"},
		{"none and some", "trace --print x --quiet --only RESET", 2, "--quiet"},
		{"stray argument", "trace x", 2, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _, stderr := run(t, strings.Fields(c.args)...)
			if status != c.status || !strings.HasPrefix(stderr, "vfu: ") || !strings.Contains(stderr, c.says) {
				t.Errorf("status %d: %q, want %d and %q", status, stderr, c.status, c.says)
			}
		})
	}
}

// What cannot be written ends the trace: a recording with a hole in it would deceive.
func TestTraceEndsIfItCannotRecord(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	serve(t, command(t, "serve", "nvme", "--socket", b, "--namespace", "mem:16M"))
	tracer, _ := traced(t, "--listen", a, "--connect", b, "--write", "/dev/full", "--quiet")
	go func() { _, _, _ = run(t, "trace", "--replay", sample(t), "--connect", a) }()
	if err := tracer.Wait(); err == nil || tracer.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
}
