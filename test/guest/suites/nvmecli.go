package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed cases.py
var casesPy []byte

// prepareNVMeCLI takes the end-to-end tests of a checkout of nvme-cli: tests/e2e as of
// version 3, tests before. They take the program of the checkout if it was built (statically)
// in .build, else Debian's, which knows too little for the tests of version 3.
func prepareNVMeCLI(checkout, folder string) (*suite, error) {
	if checkout == "" {
		return nil, nil
	}
	if err := os.CopyFS(filepath.Join(folder, "tests"), os.DirFS(filepath.Join(checkout, "tests"))); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(folder, "cases.py"), casesPy, 0o644); err != nil {
		return nil, err
	}
	program := "nvme"
	switch built, err := os.ReadFile(filepath.Join(checkout, ".build", "nvme")); {
	case err == nil:
		program = "/suite/nvme"
		if err := os.WriteFile(filepath.Join(folder, "nvme"), built, 0o755); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	dir, prefix := "tests/e2e", "tests.e2e."
	if _, err := os.Stat(filepath.Join(folder, dir)); err != nil {
		dir, prefix = "tests", ""
	}
	modules, err := filepath.Glob(filepath.Join(folder, dir, "nvme_*_test.py"))
	if err != nil {
		return nil, err
	}
	slices.Sort(modules)
	s := &suite{name: "nvme-cli", folder: folder, results: func(_, output string) []result { return caseResults(output) }}
	for _, module := range modules {
		s.cases = append(s.cases, strings.TrimSuffix(filepath.Base(module), ".py"))
	}
	s.script = func(name string) string {
		return fmt.Sprintf(`
printf '{"controller": "%%s", "ns1": "%%s", "log_dir": "/tmp/nvmetests/", "log_level": "DEBUG", "nvme_bin": "%%s"}' $ctrl $disk %s > tests/config.json
NVME_E2E_CONFIG=$(cat tests/config.json) PYTHONPATH=.:tests python3 cases.py %s%s 2>&1`, program, prefix, name)
	}
	return s, nil
}

// caseResults reads the lines of cases.py.
func caseResults(output string) (found []result) {
	for line := range strings.Lines(output) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(fields) < 3 || fields[0] != "@CASE" {
			continue
		}
		r := result{name: strings.TrimPrefix(fields[2], "tests.e2e."), outcome: fields[1]}
		if len(fields) > 3 {
			r.why = fields[3]
		}
		found = append(found, r)
	}
	return found
}
