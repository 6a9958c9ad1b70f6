// The tests of this folder hold the whole module to its layout: who may import whom, where
// unsafe code lies, and what no file may contain.
package vfiouser_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module  = "vfiouser/"
	sys     = "golang.org/x/sys/unix"
	netpoll = "github.com/panjf2000/gnet/v2/pkg/netpoll"
	gneterr = "github.com/panjf2000/gnet/v2/pkg/errors" // what netpoll's errors are
	buffers = "github.com/valyala/bytebufferpool"
)

// layout says what the packages of a folder may import beside the standard library and what
// lies below that folder. The longest folder that fits a package holds. Test files are free.
var layout = map[string][]string{
	"internal/unixsocket": {sys},
	"codec":               {},
	"pci":                 {},
	"dma":                 {"vfiouser/codec", sys},
	"irq":                 {"vfiouser/codec", sys},
	"engine/reactor":      {netpoll, gneterr, sys},
	"engine":              {"vfiouser/internal/unixsocket", "vfiouser/codec", "vfiouser/pci", "vfiouser/dma", "vfiouser/irq", buffers, sys},
	"client":              {"vfiouser/engine/reactor", "vfiouser/codec", sys},
	"block":               {"vfiouser/engine/reactor", sys},
	"devices/nvme/spec":   {},
	"devices/nvme":        {"vfiouser/engine", "vfiouser/dma", "vfiouser/irq", "vfiouser/pci", "vfiouser/block"},
	"drivers/nvme":        {"vfiouser/client", "vfiouser/devices/nvme/spec"},

	"link/vnet":                {},
	"link":                     {"vfiouser/engine/reactor", sys},
	"devices/virtio/spec":      {},
	"devices/virtio/virtqueue": {"vfiouser/dma", "vfiouser/devices/virtio/spec"},
	"devices/virtio":           {"vfiouser/engine", "vfiouser/dma", "vfiouser/irq", "vfiouser/pci"},
	"devices/virtio-net/spec":  {},
	"devices/virtio-net": {"vfiouser/engine", "vfiouser/dma", "vfiouser/irq", "vfiouser/pci", "vfiouser/link", "vfiouser/link/vnet",
		"vfiouser/devices/virtio", "vfiouser/devices/virtio/spec", "vfiouser/devices/virtio/virtqueue"},
	"drivers/virtio": {"vfiouser/client", "vfiouser/dma", "vfiouser/pci", "vfiouser/devices/virtio/spec"},
	"drivers/virtio-net": {"vfiouser/client", "vfiouser/drivers/virtio", "vfiouser/link/vnet",
		"vfiouser/devices/virtio/spec", "vfiouser/devices/virtio-net/spec"},

	"cmd":   {anything},
	"bench": {anything},
	"fuzz":  {anything},
	"test":  {anything},
	// The suite is an independent witness: it shares no code with what it checks.
	"test/conformance":     {sys},
	"test/conformance/dut": {anything},
}

const anything = "*"

// source is a Go file of the module.
type source struct {
	path string // from the module's root
	file *ast.File
}

func (s source) folder() string { return path.Dir(s.path) }
func (s source) isTest() bool   { return strings.HasSuffix(s.path, "_test.go") }

// imports are the paths that the file imports.
func (s source) imports(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}

// walk calls visit for every file of the module that belongs to the project.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !entry.IsDir():
			visit(path)
		case path == ".git" || path == "bin" || path == ".cache":
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses the Go files, whatever their build tags say, as far as the imports.
func sources(t *testing.T) []source {
	t.Helper()
	var found []source
	walk(t, func(path string) {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata/") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		found = append(found, source{path, file})
	})
	return found
}

// rule returns the folder of the layout that holds for a package's folder.
func rule(folder string) (string, bool) {
	for ; folder != "."; folder = path.Dir(folder) {
		if _, ok := layout[folder]; ok {
			return folder, true
		}
	}
	return "", false
}

func TestPackagesImportOnlyWhatTheLayoutAllows(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		folder, ok := rule(s.folder())
		if !ok {
			t.Errorf("%s: the layout has no place for this folder", s.path)
			continue
		}
		allowed := layout[folder]
		for _, imported := range s.imports(t) {
			first, _, _ := strings.Cut(imported, "/")
			standard := !strings.Contains(first, ".") && first != strings.TrimSuffix(module, "/")
			below := strings.HasPrefix(imported+"/", module+folder+"/")
			switch {
			case imported == "C":
				t.Errorf("%s: cgo", s.path)
			case standard, below, slices.Contains(allowed, anything), slices.Contains(allowed, imported):
			default:
				t.Errorf("%s: %s may not import %s", s.path, folder, imported)
			}
		}
	}
}

func TestUnsafeIsFencedByFileName(t *testing.T) {
	fence := regexp.MustCompile(`_unsafe(_test)?\.go$`)
	for _, s := range sources(t) {
		if slices.Contains(s.imports(t), "unsafe") && !fence.MatchString(s.path) {
			t.Errorf("%s imports unsafe, but is not named *_unsafe.go", s.path)
		}
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		home := path.Base(s.path) == "doc.go" || s.file.Name.Name == "main"
		documented[s.folder()] = documented[s.folder()] || home && s.file.Doc != nil
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s has no doc.go with a package comment", folder)
		}
	}
}

func TestNothingIsLeftForLater(t *testing.T) {
	marks := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	text := regexp.MustCompile(`(\.(go|sh|md|c|mod|yaml|yml)|/init|/run|Makefile)$`)
	walk(t, func(path string) {
		if !text.MatchString(path) {
			return
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		number := 0
		for line := range strings.Lines(string(content)) {
			number++
			if mark := marks.FindString(line); mark != "" {
				t.Errorf("%s:%d: %s", path, number, mark)
			}
		}
	})
}
