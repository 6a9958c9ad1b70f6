package stacks

import (
	"regexp"
	"runtime"
	"strings"
)

// All is what all goroutines do.
func All() string {
	buf := make([]byte, 1<<20)
	return Readable(string(buf[:runtime.Stack(buf, true)]))
}

var (
	header    = regexp.MustCompile(`^goroutine \d+.*\]:$`)
	machine   = regexp.MustCompile(` (gp|m|mp|fp|sp|pc)=\S+| \+0x[\da-f]+`)
	register  = regexp.MustCompile(`^(r\w+|cs|fs|gs|x\d+|lr|sp|pc|fault) +0x[\da-f]+$|^PC=`)
	foreign   = regexp.MustCompile(`^(created by )?(runtime|testing|reflect|internal/[\w/]+)\.|^panic\(|^main\.main\(`)
	arguments = regexp.MustCompile(`\((0x|\{0x|\.\.\.|\{\{)[^()]*\)$`)
)

// Readable is a text without what is not the program's own in the stacks that are part of it: the
// frames of the runtime and of the test runner, goroutines that have no other ones, values of
// arguments and registers.
func Readable(text string) string {
	var out, stack []string // the goroutine's that is being read
	inside := false
	flush := func() {
		if len(stack) > 1 {
			out = append(out, stack...)
			out = append(out, "")
		}
		stack, inside = nil, false
	}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		switch {
		case header.MatchString(line):
			flush()
			stack, inside = []string{machine.ReplaceAllString(line, "")}, true
		case register.MatchString(line):
		case !inside:
			out = append(out, lines[i])
		case line == "":
			flush()
		case foreign.MatchString(line):
			i++ // the line with the place
		default:
			stack = append(stack, arguments.ReplaceAllString(line, "(…)"))
			if i++; i < len(lines) {
				stack = append(stack, "\t"+machine.ReplaceAllString(strings.TrimSpace(lines[i]), ""))
			}
		}
	}
	flush()
	return strings.TrimRight(strings.Join(out, "\n"), "\n")
}
