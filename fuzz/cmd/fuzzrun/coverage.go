package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"vfiouser/fuzz/internal/profile"
)

// coverage counts the statements that the inputs of a target run, of those that it is meant to
// cover. The inputs are its seeds and all that are stored and cached, but for one that crashes.
func (r *runner) coverage(ctx context.Context, t target, binary, crashing string) (sum profile.Count, err error) {
	folder, err := os.MkdirTemp(r.temp, "coverage")
	if err != nil {
		return sum, err
	}
	inputs := filepath.Join(folder, "testdata", "fuzz", t.Name)
	err = errors.Join(
		mirror(folder, t),
		os.MkdirAll(inputs, 0o755),
		linkAll(t.inputs(), inputs, crashing),
		linkAll(filepath.Join(r.cache, t.Package, t.Name), inputs, ""))
	if err != nil {
		return sum, err
	}
	file := filepath.Join(r.temp, "profile")
	cmd := exec.CommandContext(ctx, binary, "-test.run=^"+t.Name+"$", "-test.coverprofile="+file, "-test.timeout=30m")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return sum, errors.New(strings.TrimSpace(string(out)))
	}
	f, err := os.Open(file)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	files, err := profile.Read(f)
	for name, count := range files {
		if t.covered(folderOf(t.module, name)) {
			sum.Add(count)
		}
	}
	return sum, err
}

// mirror makes a folder look like that of the target's package, except that inputs are missing.
func mirror(folder string, t target) error {
	return errors.Join(
		os.MkdirAll(filepath.Join(folder, "testdata", "fuzz"), 0o755),
		linkAll(t.dir, folder, ""),
		linkAll(filepath.Join(t.dir, "testdata"), filepath.Join(folder, "testdata"), ""))
}

// linkAll links what is in a folder, if there is one, into another, except one of its entries and
// what that has already.
func linkAll(from, to, except string) error {
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == except {
			continue
		}
		err := os.Symlink(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
