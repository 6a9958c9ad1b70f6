package main

import (
	"regexp"
	"strings"
	"time"

	"vfiouser/fuzz/internal/stacks"
)

// failure is how an input failed.
type failure struct {
	kind string // what failures with the same cause have in common
	text string
}

const (
	// slowFailure is how long an execution takes that does nothing for most of it: it waits for
	// something that does not come.
	slowFailure = 4 * time.Second

	// Bounds of what is kept of a failure, and of that what is shown, in lines.
	keptLines  = 5000
	shownLines = 200

	// hangs is the kind of those that wait for ever, or so.
	hangs = "hangs"
)

// newFailure is the one that tells of itself with some lines.
func newFailure(lines []string, hung bool) failure {
	if hung {
		return failure{kind: hangs, text: shown(lines)}
	}
	return failure{kind: kindOf(lines), text: shown(lines)}
}

// shown is what a person gets to see of a failure.
func shown(lines []string) string {
	lines = strings.Split(stacks.Readable(strings.Join(lines, "\n")), "\n")
	return strings.Join(lines[:min(len(lines), shownLines)], "\n")
}

var (
	fatalLine   = regexp.MustCompile(`^(panic: |fatal error: |unexpected fault|SIG[A-Z]+: )`)
	frameLine   = regexp.MustCompile(`^([\w./*()\[\]-]+)\(.*\)$`)
	foreignLine = regexp.MustCompile(`^(panic|runtime|testing|reflect|sync|os|internal/\S+)(\.|$)`)
	testLine    = regexp.MustCompile(`^\s+(\S+\.go:\d+): `)
	loggedLine  = regexp.MustCompile(`^\s*panic: .*`)
	numbers     = regexp.MustCompile(`\d[\da-fx]*`)
)

// kindOf takes what a panic says and where, or where in a test Error was called, and the panics
// that a device has logged.
func kindOf(lines []string) string {
	var kind []string
	fatal := false
	for _, line := range lines {
		switch frame := frameLine.FindStringSubmatch(line); {
		case fatal && frame != nil && !foreignLine.MatchString(frame[1]):
			return strings.Join(append(kind, frame[1]), " ")
		case fatal:
		case fatalLine.MatchString(line):
			fatal = true
			kind = append(kind, numbers.ReplaceAllString(line, "#"))
		case testLine.MatchString(line): // the last one: others may only have logged something
			kind = []string{testLine.FindStringSubmatch(line)[1]}
		case loggedLine.MatchString(line):
			kind = append(kind, numbers.ReplaceAllString(line, "#"))
		}
	}
	return strings.Join(kind, " ")
}
