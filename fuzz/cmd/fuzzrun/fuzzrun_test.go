package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// files are a module with fuzz targets, one for each thing that can come of one.
var files = map[string]string{
	"go.mod": "module example\n\ngo 1.26\n",
	"parse/parse.go": `package parse

func Long(b []byte) bool {
	if len(b) > 3 {
		return true
	}
	return false
}

func Other() {}
`,
	"parse/parse_test.go": `package parse

import (
	"bytes"
	"os"
	"testing"
)

func FuzzGood(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) { Long(b) })
}

// FuzzCrash: fails with what only a mutation can be.
//
//fuzz:covers parse/parse.go
func FuzzCrash(f *testing.F) {
	f.Add([]byte("abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 && b[0] != 'a' {
			t.Error("no a")
		}
	})
}

// FuzzHang lasts for ever with what only a mutation can be.
func FuzzHang(f *testing.F) {
	f.Add([]byte("abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 && b[0] != 'a' {
		}
	})
}

// FuzzDeath ends the process, in a goroutine, after three operations of many.
func FuzzDeath(f *testing.F) {
	program := bytes.Repeat([]byte("......,,,,,,"), 20)
	f.Add(program)
	f.Fuzz(func(t *testing.T, b []byte) {
		program := map[byte]int{}
		for _, op := range b {
			program[op]++
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			if program['!'] > 0 && program['.'] > 2 {
				panic("three points")
			}
		}()
		<-done
	})
}

// FuzzSeed fails with a seed.
func FuzzSeed(f *testing.F) {
	f.Add([]byte("abcd"))
	f.Fuzz(func(t *testing.T, b []byte) { t.Error("never") })
}

func FuzzUnable(f *testing.F) {
	f.Fatal("cannot be run")
}

func FuzzStored(f *testing.F) {
	for _, name := range []string{"testdata/table", "../fuzz/doc.go", "../go.mod"} {
		if _, err := os.Stat(name); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { Long(b) })
}

type other struct{}

func (other) FuzzMethod(f *testing.F) {}
`,
	"parse/testdata/table":                "1",
	"parse/testdata/fuzz/FuzzStored/long": "go test fuzz v1\n[]byte(\"abcde\")\n",
	"fuzz/doc.go":                         "package fuzz\n",
	"fuzz/suite_test.go": `package fuzz

import (
	"example/parse"
	"testing"
)

func FuzzSuite(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { parse.Long(b) })
}
`,
}

// inModule makes that module the current folder, with a cache of its own for what is found.
func inModule(t *testing.T) *runner {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return &runner{time: time.Second, hang: 10 * time.Second, shrink: 20 * time.Second, parallel: 1, measure: true, cache: t.TempDir(), meter: newMeter(null)}
}

func TestTargets(t *testing.T) {
	inModule(t)
	found, _, err := targets()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range found {
		got[f.String()] = strings.Join(f.covers, " ")
	}
	want := map[string]string{
		"parse/FuzzGood": "parse", "parse/FuzzCrash": "parse/parse.go", "parse/FuzzHang": "parse",
		"parse/FuzzDeath": "parse", "parse/FuzzSeed": "parse", "parse/FuzzUnable": "parse", "parse/FuzzStored": "parse", "fuzz/FuzzSuite": "parse",
	}
	if !maps.Equal(got, want) {
		t.Errorf("targets %v, want %v", got, want)
	}
}

func TestListOfTargets(t *testing.T) {
	inModule(t)
	var out strings.Builder
	if err := listTargets(&out, "Crash|Good"); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "parse/FuzzGood   \nparse/FuzzCrash  fails with what only a mutation can be.\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := listTargets(&out, "FuzzNowhere"); err == nil || !strings.Contains(err.Error(), "parse/FuzzGood") {
		t.Errorf("no target, and %v", err)
	}
}

func TestCovered(t *testing.T) {
	ts := target{covers: []string{"codec/cutter.go", "pci", "devices/..."}}
	for file, want := range map[string]bool{
		"codec/cutter.go": true, "codec/version.go": false, "pci/bar.go": true, "pci/sub/x.go": false,
		"devices/nvme/io.go": true, "devicesx/io.go": false,
	} {
		if ts.covered(file) != want {
			t.Errorf("covered(%s) is %v", file, !want)
		}
	}
	if got := coverPatterns([]target{ts, {covers: []string{"codec"}}}); got != "./codec,./devices/...,./pci" {
		t.Errorf("patterns %s", got)
	}
}

// byName runs targets, and returns what came of each.
func (r *runner) byName(t *testing.T, only string) (map[string]result, error) {
	t.Helper()
	results, err := r.all(t.Context(), only)
	found := map[string]result{}
	for _, r := range results {
		found[strings.TrimPrefix(r.Target, "parse/")] = r
	}
	return found, err
}

func TestTargetsThatDoNotFail(t *testing.T) {
	r := inModule(t)
	cached := filepath.Join(r.cache, "example", "parse", "FuzzStored")
	if err := os.MkdirAll(cached, 0o755); err != nil {
		t.Fatal(err)
	}
	// Of an earlier version of the target.
	if err := os.WriteFile(filepath.Join(cached, "0a1b2c3d"), []byte("go test fuzz v1\nint(1)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	results, err := r.byName(t, "^FuzzGood$|parse/FuzzStored|FuzzUnable")
	if err == nil || !strings.Contains(err.Error(), "cannot be run") || strings.Contains(err.Error(), "FuzzGood") {
		t.Errorf("the error of what cannot be run is %v", err)
	}
	got := results["FuzzGood"]
	if got.Executions < 100 || got.Rate < 1 || got.Corpus < 1 || got.Crashes != 0 {
		t.Errorf("result %+v", got)
	}
	if got.Coverage == nil || got.Coverage.Statements != 3 || got.Coverage.Covered < 2 {
		t.Errorf("coverage %+v", got.Coverage)
	}
	if c := results["FuzzStored"].Coverage; c == nil || c.Covered < 2 {
		t.Errorf("stored inputs cover %+v", c)
	}
	if _, err := r.all(t.Context(), "FuzzNowhere"); err == nil {
		t.Error("no target, no error")
	}
}

func TestCrashes(t *testing.T) {
	r := inModule(t)
	r.time, r.hang = 20*time.Second, time.Second
	results, err := r.byName(t, "FuzzCrash|FuzzDeath|FuzzHang|FuzzSeed")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target, failure string
		bytes           int
		content         string // "": it is not the only one that is so small
	}{
		{"FuzzCrash", "no a", 1, `[]byte("\x00")`},
		{"FuzzHang", "FuzzHang.func1", 1, `[]byte("\x00")`},
		{"FuzzDeath", "panic: three points", 4, ""},
	} {
		t.Run(c.target, func(t *testing.T) {
			got := results[c.target]
			if got.Crashes != 1 || got.Bytes != c.bytes || got.Coverage == nil || !strings.Contains(got.Failure, c.failure) {
				t.Errorf("result %+v", got)
			}
			content, err := os.ReadFile(got.Input)
			if err != nil || c.content != "" && string(content) != "go test fuzz v1\n"+c.content+"\n" {
				t.Errorf("the input is %q, %v", content, err)
			}
			if all, err := os.ReadDir(filepath.Dir(got.Input)); err != nil || len(all) != 1 {
				t.Errorf("stored are %v, %v", all, err)
			}
			if !strings.Contains(got.Replay, "'^"+c.target+"$/^") || !strings.HasSuffix(got.Replay, " ./parse") {
				t.Errorf("it is run again with %s", got.Replay)
			}
		})
	}
	got := results["FuzzSeed"]
	if got.Crashes != 1 || got.Input != "" || !strings.Contains(got.Replay, "'^FuzzSeed$/^seed#0$'") {
		t.Errorf("result of the seed %+v", got)
	}
	var out strings.Builder
	if err := table(&out, []result{got}); err != nil || !strings.Contains(out.String(), "parse/FuzzSeed CRASHES with the seed seed#0") {
		t.Errorf("it is told with %v as\n%s", err, &out)
	}
}

// An execution that hangs when the time is over is not lost.
func TestHangAtTheEnd(t *testing.T) {
	r := inModule(t)
	r.hang, r.measure = time.Second, false
	results, err := r.byName(t, "FuzzHang")
	if got := results["FuzzHang"]; err != nil || got.Crashes != 1 || got.Seconds < 2 {
		t.Errorf("results %+v, %v", results, err)
	}
}

// writer is a terminal that calls a function.
type writer func(text string)

func (w writer) Write(b []byte) (int, error) {
	w(string(b))
	return len(b), nil
}

func TestInterrupt(t *testing.T) {
	r := inModule(t)
	r.time, r.measure = time.Hour, false
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.meter = meter{terminal: true, w: writer(func(text string) {
		if strings.Contains(text, "executions") {
			cancel()
		}
	})}
	results, err := r.all(ctx, "FuzzGood")
	if err == nil || len(results) != 1 || results[0].Executions == 0 {
		t.Errorf("results %+v, %v", results, err)
	}
}
