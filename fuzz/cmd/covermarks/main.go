// Command covermarks runs tests, with the inputs that are stored for their fuzz targets, and
// holds the statements that each package's tests cover against a mark. An argument says for
// which packages, and what share there has to be at least, in percent:
//
//	covermarks ./codec=95 ./devices/...=85
//
// The exit status is 1 if a package is below its mark, 2 if the tests fail.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
)

// mark is the share of its statements that the tests of a package have to cover.
type mark struct {
	packages string // pattern, as go test takes it
	percent  float64
}

func parseMark(arg string) (mark, error) {
	packages, text, _ := strings.Cut(arg, "=")
	percent, err := strconv.ParseFloat(text, 64)
	if err != nil || percent < 0 || percent > 100 {
		return mark{}, fmt.Errorf("%q is not PACKAGES=PERCENT", arg)
	}
	return mark{packages, percent}, nil
}

func main() {
	var marks []mark
	for _, arg := range os.Args[1:] {
		m, err := parseMark(arg)
		if err != nil {
			fmt.Fprintln(os.Stderr, "covermarks:", err)
			os.Exit(2)
		}
		marks = append(marks, m)
	}
	reached, err := run(context.Background(), os.Stdout, marks)
	if err != nil {
		fmt.Fprintln(os.Stderr, "covermarks:", err)
		os.Exit(2)
	}
	if !reached {
		os.Exit(1)
	}
}

// run prints a line for each package, and returns whether all are where they have to be.
func run(ctx context.Context, w io.Writer, marks []mark) (reached bool, err error) {
	reached = true
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "package\tcovered\tmark\t")
	for _, m := range marks {
		out, err := exec.CommandContext(ctx, "go", "test", "-cover", m.packages).CombinedOutput()
		if err != nil {
			return false, fmt.Errorf("go test %s: %w\n%s", m.packages, err, out)
		}
		for _, p := range shares(out) {
			verdict := ""
			if p.percent < m.percent {
				verdict, reached = "below", false
			}
			fmt.Fprintf(tab, "%s\t%.1f%%\t%.0f%%\t%s\n", p.name, p.percent, m.percent, verdict)
		}
	}
	return reached, tab.Flush()
}

// share is how much of a package its tests cover.
type share struct {
	name    string
	percent float64
}

// A package without tests has a line as well, without the ok.
var shareLine = regexp.MustCompile(`^(?:ok)?\s+(\S+)\s.*\bcoverage: ([0-9.]+)% of statements`)

// shares reads what go test -cover prints. Packages without statements are not in it.
func shares(out []byte) (found []share) {
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		m := shareLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		percent, err := strconv.ParseFloat(m[2], 64)
		if err == nil {
			found = append(found, share{m[1], percent})
		}
	}
	return found
}
