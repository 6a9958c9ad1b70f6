package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	benchcompare "vfiouser/bench/compare"
	benchresult "vfiouser/bench/result"
)

// benchSays runs vfu bench and wants a status, and a text in what it prints.
func benchSays(t *testing.T, status int, want string, args ...string) (stdout string) {
	t.Helper()
	cmd := command(t, append([]string{"bench"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, _ := cmd.Output() // the status says it
	if got := cmd.ProcessState.ExitCode(); got != status || !strings.Contains(string(out)+stderr.String(), want) {
		t.Errorf("%q: status %d; want %d, and %q in\n%s%s", args, got, status, want, out, &stderr)
	}
	return string(out)
}

// resultsFile writes a run of two cases, the second of which takes as long as is said.
func resultsFile(t *testing.T, name string, second float64, change func(*benchresult.Report)) (path string) {
	t.Helper()
	r := &benchresult.Report{Schema: benchresult.Schema, Mode: "quick", Rounds: 10}
	for _, c := range []struct {
		name string
		ns   float64
	}{{"irq/trigger", 400}, {"translate/same", second}} {
		k := benchresult.Case{Name: c.name, Unit: benchresult.UnitTime, Limit: "limit", Allocs: new(float64)}
		for i := range 10 {
			k.Samples = append(k.Samples, c.ns*(1+float64(i*7%10)/1000))
			k.LimitSamples = append(k.LimitSamples, 100*(1+float64(i*3%10)/1000))
		}
		r.Cases = append(r.Cases, k)
	}
	if change != nil {
		change(r)
	}
	path = filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.Write(f); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBenchCompare(t *testing.T) {
	before, same := resultsFile(t, "before.json", 10, nil), resultsFile(t, "same.json", 10.1, nil)
	slow, fast := resultsFile(t, "slow.json", 13, nil), resultsFile(t, "fast.json", 7, nil)
	elsewhere := resultsFile(t, "elsewhere.json", 10, func(r *benchresult.Report) { r.Environment.CPU = "another" })
	fails := resultsFile(t, "fails.json", 10, func(r *benchresult.Report) {
		r.Cases[0].Samples, r.Cases[0].LimitSamples, r.Cases[0].Missing, r.Cases[0].Failed = nil, nil, "broken", true
	})
	one := 1.0
	allocates := resultsFile(t, "allocates.json", 10, func(r *benchresult.Report) { r.Cases[0].Allocs = &one })
	strange := resultsFile(t, "strange.json", 10, func(r *benchresult.Report) { r.Cases[0].Name, r.Cases[1].Name = "a", "b" })
	hostile := filepath.Join(t.TempDir(), "hostile.json")
	if err := os.WriteFile(hostile, []byte(`{"schema":1,"cases":[{"name":"\u001b[31m"}]}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{0, "no significant change beyond 5%", []string{before, same}},
		{1, "0 faster, 1 slower, 0 allocate, 0 fail", []string{before, slow}},
		{1, "1 of 2 cases got slower by more than 5%", []string{before, slow}},
		{0, "no significant change beyond 50%", []string{before, slow, "--threshold", "50%"}},
		{1, "got slower by more than 7%", []string{before, slow, "--threshold", "7"}},
		{0, "1 faster, 0 slower", []string{before, fast}},
		{0, "processor: unknown before, another now", []string{before, elsewhere}},
		{1, "fails: broken", []string{before, fails}},
		{1, "allocates; allocations 0 → 1", []string{before, allocates}},
		{2, "no case in common", []string{before, strange}},
		{2, "not a report of vfu bench", []string{before, hostile}},
		{2, "no such file", []string{before, before + ".none"}},
		{2, "two files", []string{before}},
		{2, "must be from 0%", []string{before, same, "--threshold", "NaN"}},
		{2, "must be from 0%", []string{before, same, "--threshold", "-5%"}},
	} {
		if out := benchSays(t, test.status, test.want, append([]string{"compare"}, test.args...)...); strings.Contains(out, "\x1b") {
			t.Errorf("%q: an escape sequence in %q", test.args, out)
		}
	}
	var c benchcompare.Comparison
	if err := json.Unmarshal([]byte(benchSays(t, 1, "", "compare", before, slow, "--json")), &c); err != nil {
		t.Fatal(err)
	}
	if c.Regressions != 1 || c.Cases[1].Verdict != benchcompare.Slower || c.Cases[0].Verdict != benchcompare.NoChange {
		t.Errorf("%+v", c)
	}
}

func TestBenchMeasures(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	out := benchSays(t, 0, "", "--quick", "--only", "^irq/trigger$", "--rounds", "6", "--json", "--out", dir)
	printed, err := benchresult.Read(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if len(printed.Cases) != 1 || printed.Cases[0].Name != "irq/trigger" || len(printed.Cases[0].Samples) != 6 || printed.Cases[0].Ratio == nil {
		t.Errorf("%+v", printed.Cases)
	}
	if written, err := os.ReadFile(filepath.Join(dir, "results.json")); err != nil || string(written) != out {
		t.Error("results.json is not what is printed", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.html")); err != nil {
		t.Error(err)
	}
	benchSays(t, 0, "irq/trigger  eventfd-write", "--quick", "--list", "--only", "^irq/trigger$")
}

func TestBenchRefuses(t *testing.T) {
	for _, test := range []struct {
		want string
		args []string
	}{
		{"one or the other", []string{"--quick", "--full"}},
		{"--list measures nothing", []string{"--json", "--list"}},
		{"--list measures nothing", []string{"--out", t.TempDir(), "--list"}},
		{"--list measures nothing", []string{"--rounds", "7", "--list"}},
		{"no case matches", []string{"--only", "^$"}},
		{"--full --list", []string{"--only", "^message/read/size=64/depth=1$"}},
		{"missing closing", []string{"--only", "("}},
		{"from 6", []string{"--rounds", "5"}},
		{"to 1000", []string{"--rounds", "1001"}},
		{"unexpected argument", []string{"quick"}},
	} {
		benchSays(t, 2, test.want, test.args...)
	}
}

func TestBarFitsTheLine(t *testing.T) {
	for _, test := range []struct{ columns, name, width int }{
		{200, 44, 30}, {120, 44, 30}, {80, 34, 16}, {40, 7, 3}, {33, 2, 1}, {30, 0, 0}, {1, 0, 0},
		{0, 34, 16}, // unknown
	} {
		if name, width := barRoom(test.columns); name != test.name || width != test.width {
			t.Errorf("%d columns: a name of %d, a bar of %d; want %d and %d", test.columns, name, width, test.name, test.width)
		}
	}
}

func TestBenchFilesThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	quick := []string{"--quick", "--only", "^irq/trigger$", "--rounds", "6", "--out"}
	if out := benchSays(t, 1, "not a directory", append(quick, file)...); out != "" {
		t.Error("it was measured first:", out)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "results.json", "full"), 0o777); err != nil {
		t.Fatal(err)
	}
	if out := benchSays(t, 1, "results.json", append(quick, dir)...); !strings.Contains(out, "irq/trigger") {
		t.Error("what was measured is lost:", out)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 3 {
		t.Error("it left", names)
	}
}

// A terminal sends its signals to all processes of a job.
func TestBenchInterrupted(t *testing.T) {
	dir := t.TempDir()
	cmd := command(t, "bench", "--only", "^message/read/size=4/depth=1$", "--rounds", "1000", "--out", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !hasChild(cmd.Process.Pid) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the status says it
	if status := cmd.ProcessState.ExitCode(); status != 1 || out.String() != "vfu: interrupted, nothing is written\n" {
		t.Errorf("status %d: %s", status, &out)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) > 0 {
		t.Error("it left", names)
	}
}

// hasChild says whether a process has started another one.
func hasChild(pid int) bool {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		if text, _ := os.ReadFile(list); len(text) > 0 {
			return true
		}
	}
	return false
}
