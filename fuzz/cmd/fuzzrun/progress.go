package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// progress is what the lines that Go's fuzzer prints have said so far.
type progress struct {
	baseline   string        // inputs of the corpus that have been run, "12/345"
	executions int           // mutations and inputs that were run
	found      int           // inputs that reached something new
	corpus     int           // inputs that are kept: stored, cached and found
	fuzzing    time.Duration // from the start to the last line
	shrinking  bool          // a crash is being shrunk
	crash      string        // input that crashes, FuzzHeader/0a1b2c
	stored     bool          // it was stored before
	cut        bool          // its end was noticed by the fuzzer as if it were a failure
}

var (
	baselineLine = regexp.MustCompile(`^fuzz: elapsed: \S+, (?:gathering baseline coverage|testing seed corpus): (\d+)/(\d+) completed`)
	statusLine   = regexp.MustCompile(`^fuzz: elapsed: (\S+), execs: (\d+) \(\d+/sec\)(?:, new interesting: (\d+) \(total: (\d+)\))?$`)
	shrinkLine   = regexp.MustCompile(`^fuzz: (?:elapsed: \S+, minimizing$|minimizing \d+-byte failing input file)`)
	writtenLine  = regexp.MustCompile(`^\s*Failing input written to testdata/fuzz/(\S+)$`)
	storedLine   = regexp.MustCompile(`^failure while testing seed corpus entry: (\S+)$`)
)

// read takes in a line. Lines that are about a failure are for the user, the others only tell
// how it goes.
func (p *progress) read(line string) (forUser bool) {
	if m := baselineLine.FindStringSubmatch(line); m != nil {
		p.baseline = m[1] + "/" + m[2]
		p.executions, _ = strconv.Atoi(m[1]) // more may never come, if inputs are many or slow
		p.corpus, _ = strconv.Atoi(m[2])
		return false
	}
	if m := statusLine.FindStringSubmatch(line); m != nil {
		p.fuzzing, _ = time.ParseDuration(m[1])
		p.executions, _ = strconv.Atoi(m[2])
		p.found, _ = strconv.Atoi(m[3])
		p.corpus, _ = strconv.Atoi(m[4])
		return false
	}
	if shrinkLine.MatchString(line) {
		p.shrinking = true
		return false
	}
	if m := writtenLine.FindStringSubmatch(line); m != nil {
		p.crash = m[1]
	}
	if m := storedLine.FindStringSubmatch(line); m != nil {
		p.crash, p.stored = m[1], true
	}
	switch strings.TrimSpace(line) {
	case "context canceled":
		p.cut = true
		return false
	case "PASS":
		return false
	}
	return true
}
