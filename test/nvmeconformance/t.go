package nvmeconformance

import (
	"fmt"
	"strings"

	"vfiouser/devices/nvme/spec"
)

// T is what a check works with: the controller, and what was found.
type T struct {
	*rig
	failures []string
	skipped  string
}

// stop ends a check.
type stop struct{}

// errorf records a failure; the check goes on.
func (t *T) errorf(format string, args ...any) {
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

// fatalf records a failure and ends the check.
func (t *T) fatalf(format string, args ...any) {
	t.errorf(format, args...)
	panic(stop{})
}

// skipf ends the check because the controller lacks what it is about.
func (t *T) skipf(format string, args ...any) {
	t.skipped = fmt.Sprintf(format, args...)
	panic(stop{})
}

// need skips the check unless the controller has something.
func (t *T) need(ok bool, what string) {
	if !ok {
		t.skipf("no %s", what)
	}
}

// run runs a check on a controller that is up with one I/O queue pair, or on one that is
// disabled, and finds out what came of it.
func (r *rig) run(check *Check) (result Result) {
	t := &T{rig: r}
	result.Check = *check
	t.protect(func() {
		if check.raw {
			r.down(t)
		} else {
			r.up(t)
		}
		check.run(t)
	})
	if len(t.failures) > 0 || check.raw {
		r.dirty = true
	}
	switch {
	case len(t.failures) > 0:
		result.Outcome, result.Detail = Failed, strings.Join(t.failures, "; ")
	case t.skipped != "":
		result.Outcome, result.Detail = Skipped, t.skipped
	}
	return result
}

func (t *T) protect(f func()) {
	defer func() {
		switch v := recover().(type) {
		case nil, stop:
		default:
			panic(v)
		}
	}()
	f()
}

// equal compares a value with what the specification says.
func equal[V comparable](t *T, what string, got, want V) {
	if got != want {
		t.errorf("%s is %#v, must be %#v", what, got, want)
	}
}

// status compares the status of a completion: the code exactly, and Do Not Retry for an error
// that comes again if the command does.
func (t *T) status(what string, c completion, want spec.Status) {
	got := c.Status &^ spec.StatusMore
	if got != want {
		t.errorf("%s completes with %s, must be %s", what, describe(got), describe(want))
	}
}

func describe(s spec.Status) string {
	if s.OK() {
		return "success"
	}
	return strings.TrimPrefix(s.Error(), "nvme: ")
}

// never is a status with Do Not Retry.
func never(s spec.Status) spec.Status { return s | spec.StatusDNR }
