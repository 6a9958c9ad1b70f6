package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInputsAreReadAndWritten(t *testing.T) {
	const stored = "go test fuzz v1\n[]byte(\"a\\x00\\\"\")\nint(-7)\nstring(\"é\")\n"
	in, err := parseInput([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	if string(in[0].bytes) != "a\x00\"" || !in[1].whole || string(in[2].bytes) != "é" || in.size() != 5 {
		t.Errorf("it is %+v", in)
	}
	if got := string(in.marshal()); got != stored {
		t.Errorf("it is written as %q", got)
	}
	if got := string(in.with(0, nil).marshal()); got != "go test fuzz v1\n[]byte(\"\")\nint(-7)\nstring(\"é\")\n" || string(in.marshal()) != stored {
		t.Errorf("with another value it is %q", got)
	}
	for _, bad := range []string{"", "go test fuzz v2\n", "go test fuzz v1\n[]byte(7)\n"} {
		if _, err := parseInput([]byte(bad)); err == nil {
			t.Errorf("%q is an input", bad)
		}
	}
}

func TestOperations(t *testing.T) {
	for _, c := range []struct {
		marks string
		n     int
		want  []int
	}{
		{"", 10, []int{0, 10}},
		{"0 0\n10 0\n10 3\n10 7\n10 10\n", 10, []int{0, 3, 7, 10}},
		{"8 0\n8 5\n8 8\n", 10, []int{0, 2, 7, 10}}, // the first two bytes are no choices
		{"20 0\n20 9\n", 10, []int{0, 10}},          // of another value
		{"nonsense\n4\n", 10, []int{0, 10}},
	} {
		if got := operations(c.marks, c.n); !slices.Equal(got, c.want) {
			t.Errorf("operations of %q are at %v, want %v", c.marks, got, c.want)
		}
	}
}

func TestKindOfFailure(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"panic: index out of range [12] with length 4 [recovered, repanicked]\n\ngoroutine 5 [running]:\ntesting.tRunner(0x1)\n\t/t.go:1\npanic({0x1?, 0x2})\n\t/p.go:1\na/b.(*T).Write(...)\n\t/w.go:1\na/b.Run()\n\t/w.go:2",
			"panic: index out of range [#] with length # [recovered, repanicked] a/b.(*T).Write"},
		{"    x_test.go:12: got 7\n    x_test.go:20: later", "x_test.go:20"},
		{"    rig.go:9: a handler panicked\n        panic: ouch 12\n        stack: x", "rig.go:9         panic: ouch #"},
		{"fatal error: all goroutines are asleep - deadlock!", "fatal error: all goroutines are asleep - deadlock!"},
		{"", ""},
	} {
		if got := kindOf(strings.Split(c.text, "\n")); got != c.want {
			t.Errorf("the kind is %q, want %q", got, c.want)
		}
	}
}

// script is a program that does as a test binary does with the inputs that are stored: those fail
// in whose value every word is that it is given.
const script = `#!/bin/sh
echo "=== RUN   FuzzX"
for f in testdata/fuzz/FuzzX/*; do
	echo "=== RUN   FuzzX/${f##*/}"
	fails=1
	for word in one two; do grep -q "$word" $f || fails=0; done
	echo "    x_test.go:9: it logs"
	[ $fails = 0 ] && continue
	echo "    x_test.go:1: both"
	failed="$failed ${f##*/}"
done
echo "--- FAIL: FuzzX (0.00s)"
for f in $failed; do echo "    --- FAIL: FuzzX/$f (0.00s)"; done
[ -z "$failed" ]
`

func TestShrink(t *testing.T) {
	tr := &trial{name: "FuzzX", binary: filepath.Join(t.TempDir(), "x.test"), folder: t.TempDir(), hang: time.Minute}
	if err := os.WriteFile(tr.binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	in := input{{text: "[]byte", bytes: []byte("and a one and a two and a one, two, three")}, {text: "int(4)", whole: true}}
	which, f, err := tr.first(t.Context(), []input{in.with(0, []byte("none")), in}, time.Minute, func(f failure) bool { return f.kind == "x_test.go:1" })
	if which != 1 || f.kind != "x_test.go:1" || err != nil {
		t.Fatalf("%d fails with %+v, %v", which, f, err)
	}
	got, f := tr.shrink(t.Context(), in, f, func(int) {})
	if s := string(got[0].bytes); s != "onetwo" && s != "twoone" || f.kind != "x_test.go:1" {
		t.Errorf("it becomes %q, which fails with %+v", s, f)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _ := tr.shrink(over, in, f, func(int) {}); !got.equal(in) {
		t.Errorf("without time it becomes %+v", got)
	}
}
