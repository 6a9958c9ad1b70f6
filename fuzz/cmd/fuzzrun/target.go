package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// target is a fuzz target of the module.
type target struct {
	Name        string
	Package     string // its import path
	packageName string
	module      string   // that it is in
	dir         string   // where the package lies
	covers      []string // what it is meant to cover, see covered
	about       string   // what its comment says that it checks, in one line
}

// String is what the target is called in reports: codec/FuzzHeader.
func (t target) String() string { return path.Join(t.folder(), t.Name) }

// folder is the package's folder, from the module's root.
func (t target) folder() string { return folderOf(t.module, t.Package) }

// inputs is where inputs of the target are stored.
func (t target) inputs() string { return filepath.Join(t.dir, "testdata", "fuzz", t.Name) }

// folderOf strips the module from an import path or from the name of a file in a profile.
func folderOf(module, importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// covered tells whether the coverage of a file, named from the module's root, is reported for
// the target. What the target is meant to cover are files (codec/cutter.go), packages (codec)
// and trees of packages (devices/...).
func (t target) covered(file string) bool {
	return slices.ContainsFunc(t.covers, func(what string) bool {
		tree, isTree := strings.CutSuffix(what, "/...")
		return what == file || what == path.Dir(file) || isTree && strings.HasPrefix(file, tree+"/")
	})
}

// coverPackages are the patterns of the packages that have to be instrumented for it.
func (t target) coverPackages() []string {
	var patterns []string
	for _, what := range t.covers {
		if strings.HasSuffix(what, ".go") {
			what = path.Dir(what)
		}
		patterns = append(patterns, "./"+what)
	}
	return patterns
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath, Name, Dir     string
	TestGoFiles, XTestGoFiles []string
	Module                    struct{ Path, Dir string }
}

// targets are the fuzz targets of the module, by package and name.
func targets() (found []target, root string, err error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Dir,TestGoFiles,XTestGoFiles,Module", "./...").Output()
	if err != nil {
		return nil, "", describe("go list", err)
	}
	packages := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			return found, root, nil
		} else if err != nil {
			return nil, "", err
		}
		root = p.Module.Dir
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			more, err := targetsIn(p, name)
			if err != nil {
				return nil, "", err
			}
			found = append(found, more...)
		}
	}
}

// matching are the targets whose name, with or without the folder, a regular expression matches.
// That there is none is an error.
func matching(only string) (found []target, root string, err error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, "", err
	}
	found, root, err = targets()
	if err != nil {
		return nil, "", err
	}
	all := fmt.Sprint(found)
	found = slices.DeleteFunc(found, func(t target) bool {
		return !match.MatchString(t.Name) && !match.MatchString(t.String())
	})
	if len(found) == 0 {
		return nil, "", fmt.Errorf("no fuzz target matches %q; there are %s", only, all)
	}
	return found, root, nil
}

// listTargets prints what targets check.
func listTargets(w io.Writer, only string) error {
	found, _, err := matching(only)
	if err != nil {
		return err
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, t := range found {
		fmt.Fprintf(tab, "%s\t%s\n", t, t.about)
	}
	return tab.Flush()
}

// targetsIn are the targets of a file: top-level functions FuzzXxx. (Go takes no
// other ones of such a name.)
func targetsIn(p listed, name string) (found []target, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		covers := directive(fn.Doc)
		if len(covers) == 0 {
			covers = subjects(p, file)
		}
		found = append(found, target{
			Name: fn.Name.Name, Package: p.ImportPath, packageName: p.Name, module: p.Module.Path, dir: p.Dir, covers: covers, about: about(fn),
		})
	}
	return found, nil
}

// directive is what a target's doc comment says that it covers: //fuzz:covers codec/version.go
func directive(doc *ast.CommentGroup) (covers []string) {
	if doc == nil {
		return nil
	}
	for _, c := range doc.List {
		if list, ok := strings.CutPrefix(c.Text, "//fuzz:covers "); ok {
			covers = append(covers, strings.Fields(list)...)
		}
	}
	return covers
}

// about is a target's comment without the name in front and the directives.
func about(fn *ast.FuncDecl) string {
	text := strings.Join(strings.Fields(fn.Doc.Text()), " ")
	return strings.TrimPrefix(strings.TrimPrefix(text, fn.Name.Name), ": ")
}

// subjects are what the targets of a file cover if nothing is said: their package; and if that
// lies in fuzz/, the packages of the module that the file imports.
func subjects(p listed, file *ast.File) (covers []string) {
	suite := p.Module.Path + "/fuzz"
	inSuite := func(importPath string) bool { return strings.HasPrefix(importPath+"/", suite+"/") }
	if !inSuite(p.ImportPath) {
		return []string{folderOf(p.Module.Path, p.ImportPath)}
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err == nil && strings.HasPrefix(imported, p.Module.Path+"/") && !inSuite(imported) {
			covers = append(covers, folderOf(p.Module.Path, imported))
		}
	}
	return covers
}

// describe adds to the error of a command what it printed.
func describe(what string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%s: %w: %s", what, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return fmt.Errorf("%s: %w", what, err)
}
