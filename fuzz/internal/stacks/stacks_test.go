package stacks

import (
	"strings"
	"testing"
)

func TestReadable(t *testing.T) {
	const text = `panic: ouch [recovered, repanicked]
SIGQUIT: quit
PC=0x48f721 m=0 sigcode=0

goroutine 0 gp=0x7bedc0 m=0 mp=0x7bfdc0 [idle]:
runtime.futex(0x7bff18, 0x80)
	/go/src/runtime/sys_linux_amd64.s:569 +0x21 fp=0x7ffd22250348 sp=0x7ffd22250340 pc=0x48f721

goroutine 23 gp=0x240409d80b40 m=nil [sleep, 2 minutes]:
runtime.gopark(0x4bc8d726c1b7?)
	/go/src/runtime/proc.go:462 +0xce fp=0x240409dd9448 sp=0x240409dd9428 pc=0x486aee
time.Sleep(0x34630b8a000)
	/go/src/runtime/time.go:363 +0x165 fp=0x240409dd94a0 sp=0x240409dd9448 pc=0x48a645
example/deep.(*Table).Write(...)
	/src/deep.go:24
created by testing.(*F).Fuzz in goroutine 1
	/go/src/testing/fuzz.go:328 +0x668

goroutine 24 [select]:
example/deep.loop({0x1, 0x2})
	/src/deep.go:30
created by example/deep.Start in goroutine 1
	/src/deep.go:12 +0x12

rax    0xca
rip    0x48f721
fault 0x1
after
`
	const want = `panic: ouch [recovered, repanicked]
SIGQUIT: quit

goroutine 23 [sleep, 2 minutes]:
time.Sleep(…)
	/go/src/runtime/time.go:363
example/deep.(*Table).Write(…)
	/src/deep.go:24

goroutine 24 [select]:
example/deep.loop(…)
	/src/deep.go:30
created by example/deep.Start in goroutine 1
	/src/deep.go:12

after`
	if got := Readable(text); got != want {
		t.Errorf("it is\n%s\nwant\n%s", got, want)
	}
	if got := Readable("one line"); got != "one line" {
		t.Errorf("other text becomes %q", got)
	}
}

// A text that a test indents is as readable.
func TestReadableIndented(t *testing.T) {
	const text = "    x_test.go:1: hangs\n        goroutine 1 [running]:\n        a.f()\n        \t/a.go:1 +0x1"
	if got, want := Readable(text), "    x_test.go:1: hangs\ngoroutine 1 [running]:\na.f()\n\t/a.go:1"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}

func TestAllShowsTheCaller(t *testing.T) {
	if got := All(); !strings.Contains(got, "TestAllShowsTheCaller") {
		t.Errorf("it is %q", got)
	}
}
