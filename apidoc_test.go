package vfiouser_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/api.md names examples that are there, and that have an Output: only such are run.
func TestExamplesOfTheInterface(t *testing.T) {
	page, err := os.ReadFile("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, folder := range []string{"engine", "client", "devices/nvme", "devices/virtio"} {
		files, err := filepath.Glob(filepath.Join(folder, "*example*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(b)
		}
	}
	names := regexp.MustCompile("`(Example[A-Za-z_]*)`").FindAllStringSubmatch(string(page), -1)
	if len(names) == 0 {
		t.Error("no example is named")
	}
	for _, name := range names {
		_, body, found := strings.Cut(code.String(), "\nfunc "+name[1]+"() {\n")
		body, _, _ = strings.Cut(body, "\n}\n")
		if !found || !strings.Contains(body, "// Output:") {
			t.Errorf("%s: is there: %v, and has no Output", name[1], found)
		}
	}
}
