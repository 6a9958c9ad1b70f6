package lspci

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Decode is what lspci -n -vvv says of a dump. The test is skipped where there is no lspci,
// and fails under CI=true.
func Decode(t *testing.T, dump []byte) string {
	t.Helper()
	var path string
	for _, name := range []string{"lspci", "/usr/sbin/lspci", "/sbin/lspci"} { // not in every user's PATH
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	switch {
	case path != "":
	case os.Getenv("CI") == "true":
		t.Fatal("there is no lspci: `make test` installs pciutils, as root and where there is apt")
	default:
		t.Skip("there is no lspci: install pciutils")
	}
	file := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(file, dump, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(path, "-n", "-vvv", "-F", file)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("lspci: %v\n%s", err, &errs)
	}
	return out.String()
}

// Compare wants every line of a golden file in what lspci says, in that order. The lines
// are those that do not depend on its version, or parts of them; blanks do not count.
func Compare(t *testing.T, golden, got string) {
	t.Helper()
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	rest := squeeze(got)
	for line := range strings.Lines(string(want)) {
		line = squeeze(line)
		i := strings.Index(rest, line)
		if i < 0 {
			t.Errorf("%s: lspci does not say, or not here: %q", golden, line)
			continue
		}
		rest = rest[i+len(line):]
	}
	for _, complaint := range []string{"<chain looped>", "<chain broken>", "<access denied>", "!!!"} {
		if strings.Contains(got, complaint) {
			t.Errorf("lspci says %q", complaint)
		}
	}
	if t.Failed() {
		t.Logf("lspci says:\n%s", got)
	}
}
