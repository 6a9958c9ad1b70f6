package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"vfiouser/fuzz/internal/profile"
)

// coverage counts the statements that the inputs of a target run, of those that it is meant to
// cover. The inputs are its seeds and all that are stored and cached, but for one that crashes.
func (r *runner) coverage(ctx context.Context, t target, binary, crashing string) (sum profile.Count, err error) {
	root, err := os.MkdirTemp(r.temp, "coverage")
	if err != nil {
		return sum, err
	}
	folder, err := mirror(root, t)
	inputs := filepath.Join(folder, "testdata", "fuzz", t.Name)
	err = errors.Join(err,
		os.MkdirAll(inputs, 0o755),
		linkAll(t.inputs(), inputs, crashing),
		linkAll(filepath.Join(r.cache, t.Package, t.Name), inputs, ""))
	if err != nil {
		return sum, err
	}
	file := filepath.Join(r.temp, "profile")
	run := func() ([]byte, error) {
		cmd := exec.CommandContext(ctx, binary, "-test.run=^"+t.Name+"$", "-test.coverprofile="+file, "-test.timeout=30m")
		cmd.Dir = folder
		return cmd.CombinedOutput()
	}
	out, err := run()
	if err != nil && dropStrange(out, inputs, t) {
		out, err = run()
	}
	if err != nil {
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

// strangeInput is what go test says of an input that is none of the target's.
var strangeInput = regexp.MustCompile(`"testdata/fuzz/[^/"]+/([^/"]+)": `)

// dropStrange removes cached inputs of which go test says that they are none of the target's: an
// earlier version of it had arguments of other types. The fuzzer passes over them.
func dropStrange(out []byte, inputs string, t target) (dropped bool) {
	for _, m := range strangeInput.FindAllSubmatch(out, -1) {
		name := string(m[1])
		if _, err := os.Stat(filepath.Join(t.inputs(), name)); err != nil && os.Remove(filepath.Join(inputs, name)) == nil {
			dropped = true
		}
	}
	return dropped
}

// mirror makes a folder look like the module, so that tests find what lies in other folders of it,
// and returns that of the target's package, where inputs are missing.
func mirror(root string, t target) (folder string, err error) {
	var steps []string
	from := t.dir
	if t.folder() != "." {
		steps = strings.Split(t.folder(), "/")
	}
	for range steps {
		from = filepath.Dir(from)
	}
	folder = root
	for _, step := range steps {
		err = errors.Join(err, linkAll(from, folder, step), os.Mkdir(filepath.Join(folder, step), 0o755))
		from, folder = filepath.Join(from, step), filepath.Join(folder, step)
	}
	return folder, errors.Join(err,
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
