package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
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

func FuzzUnable(f *testing.F) {
	f.Fatal("cannot be run")
}

func FuzzStored(f *testing.F) {
	if _, err := os.Stat("testdata/table"); err != nil {
		f.Fatal(err)
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
	return &runner{time: time.Second, stall: time.Minute, parallel: 1, measure: true, cache: t.TempDir(), meter: newMeter(null)}
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
		"parse/FuzzUnable": "parse", "parse/FuzzStored": "parse", "fuzz/FuzzSuite": "parse",
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
	if listTargets(&out, "FuzzNowhere") == nil {
		t.Error("no target, no error")
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

func TestGoodTarget(t *testing.T) {
	r := inModule(t)
	results, err := r.all(t.Context(), "^FuzzGood$")
	if err != nil || len(results) != 1 {
		t.Fatalf("results %+v, %v", results, err)
	}
	got := results[0]
	if got.Target != "parse/FuzzGood" || got.Executions < 100 || got.Rate < 1 || got.Corpus < 1 || got.Crashes != 0 {
		t.Errorf("result %+v", got)
	}
	if got.Coverage == nil || got.Coverage.Statements != 3 || got.Coverage.Covered < 2 {
		t.Errorf("coverage %+v", got.Coverage)
	}
}

func TestCoverageIsThatOfStoredInputs(t *testing.T) {
	r := inModule(t)
	results, err := r.all(t.Context(), "parse/FuzzStored")
	if err != nil || len(results) != 1 {
		t.Fatalf("results %+v, %v", results, err)
	}
	if c := results[0].Coverage; c == nil || c.Covered < 2 {
		t.Errorf("coverage %+v", c)
	}
}

func TestTargetThatCannotBeRun(t *testing.T) {
	r := inModule(t)
	results, err := r.all(t.Context(), "FuzzUnable")
	if err == nil || !strings.Contains(err.Error(), "cannot be run") {
		t.Errorf("results %+v, error %v", results, err)
	}
	if _, err := r.all(t.Context(), "FuzzNowhere"); err == nil {
		t.Error("no target, no error")
	}
}

func TestCrashIsStored(t *testing.T) {
	for _, c := range []struct {
		target, failure string
		time, stall     time.Duration
	}{
		{"FuzzCrash", "no a", 20 * time.Second, time.Minute},
		{"FuzzHang", "hung", 20 * time.Second, time.Second},
	} {
		t.Run(c.target, func(t *testing.T) {
			r := inModule(t)
			r.time, r.stall = c.time, c.stall
			results, err := r.all(t.Context(), c.target)
			if err != nil || len(results) != 1 {
				t.Fatalf("results %+v, %v", results, err)
			}
			got := results[0]
			if got.Crashes != 1 || !strings.Contains(got.Failure, c.failure) {
				t.Errorf("result %+v", got)
			}
			if content, err := os.ReadFile(got.Input); err != nil || !slices.Contains(strings.Split(string(content), "\n"), "go test fuzz v1") {
				t.Errorf("the input is %q, %v", content, err)
			}
			if !strings.Contains(got.Replay, "'^"+c.target+"$/^") || !strings.HasSuffix(got.Replay, " ./parse") {
				t.Errorf("it is run again with %s", got.Replay)
			}
		})
	}
}
