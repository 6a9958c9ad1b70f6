package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// prepareBlktests takes the cases of a checkout of blktests that use a test device, and builds
// its programs. Cases whose program could not be built skip themselves or fail, which the log
// of make explains.
func prepareBlktests(ctx context.Context, checkout, folder, libraries string) (*suite, error) {
	if checkout == "" {
		return nil, nil
	}
	if err := os.CopyFS(folder, os.DirFS(checkout)); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "make", "-k", "-C", filepath.Join(folder, "src"), "CFLAGS=-I"+libraries, "LDFLAGS=-L"+libraries)
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "not all programs of blktests could be built: %v\n%s", err, output)
	}
	s := &suite{name: "blktests", folder: folder, results: checkResults}
	for _, group := range []string{"block", "nvme"} {
		files, err := filepath.Glob(filepath.Join(folder, "tests", group, "[0-9][0-9][0-9]"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if bytes.Contains(content, []byte("test_device()")) {
				s.cases = append(s.cases, group+"/"+filepath.Base(file))
			}
		}
	}
	slices.Sort(s.cases)
	s.script = func(name string) string {
		return fmt.Sprintf(`
cat > config <<END
TEST_DEVS=($disk)
DEVICE_ONLY=1
QUICK_RUN=1
TIMEOUT=20
NORMAL_USER=tester
NVMET_TRTYPES=loop
# It does not understand the names of Debian's kernels.
uname() { command uname "\$@" | sed 's/+deb[0-9]*//'; }
END
./check %s 2>&1
status=$?
cat results/*/%[1]s.full 2> /dev/null
exit $status`, name)
	}
	return s, nil
}

// escapes is what colours the terminal.
var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

var verdict = regexp.MustCompile(`^(\S+) .*\[(passed|failed|not run)\]`)

// checkResults reads what blktests' check prints: a line with the verdict, and indented lines
// that say why.
func checkResults(name, output string) []result {
	var found []result
	for line := range strings.Lines(escapes.ReplaceAllString(output, "")) {
		switch m := verdict.FindStringSubmatch(line); {
		case m != nil:
			found = append(found, result{name: m[1], outcome: m[2]})
		case len(found) > 0 && strings.HasPrefix(line, "    ") && found[len(found)-1].outcome != "passed" && !strings.HasPrefix(line, "    runtime"):
			last := &found[len(found)-1]
			if len(last.why) < 200 {
				last.why = strings.TrimSpace(last.why + " " + strings.TrimSpace(line))
			}
		case strings.HasPrefix(line, "Kernel:"):
			return found
		}
	}
	return found
}
