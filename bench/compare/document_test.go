package compare

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"vfiouser/bench/result"
)

// Every member of the JSON is in its documentation.
func TestJSONIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/bench.md")
	if err != nil {
		t.Fatal(err)
	}
	results, comparison, ok := strings.Cut(string(page), "\n## What `vfu bench compare --json` prints")
	if !ok {
		t.Fatal("the section on compare is not there")
	}
	_, results, _ = strings.Cut(results, "\n## results.json")
	documented(t, results, reflect.TypeFor[result.Report]())
	documented(t, comparison, reflect.TypeFor[Comparison]())
	for _, v := range []Verdict{NoChange, Faster, Slower, Allocates, Fails, Incomparable} {
		if !strings.Contains(comparison, "`"+string(v)+"`") {
			t.Errorf("the verdict %q is not documented", v)
		}
	}
}

func documented(t *testing.T, text string, of reflect.Type) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice:
		documented(t, text, of.Elem())
	case reflect.Struct:
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if of.Field(i).Anonymous { // its members are among ours
				documented(t, text, of.Field(i).Type)
				continue
			}
			if name == "" {
				return // not a structure of ours
			}
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%s.%s: `%s` is not documented", of.Name(), of.Field(i).Name, name)
			}
			documented(t, text, of.Field(i).Type)
		}
	}
}
