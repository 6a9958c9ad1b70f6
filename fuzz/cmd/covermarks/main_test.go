package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMarks(t *testing.T) {
	for arg, want := range map[string]mark{"./codec=95": {"./codec", 95}, "./devices/...=85.5": {"./devices/...", 85.5}} {
		if m, err := parseMark(arg); err != nil || m != want {
			t.Errorf("%s is %+v, %v", arg, m, err)
		}
	}
	for _, arg := range []string{"./codec", "./codec=", "./codec=x", "./codec=101", "./codec=-1"} {
		if m, err := parseMark(arg); err == nil {
			t.Errorf("%s is %+v", arg, m)
		}
	}
}

func TestShares(t *testing.T) {
	const out = `ok  	m/a	0.013s	coverage: 99.0% of statements
ok  	m/b	(cached)	coverage: 100.0% of statements
	m/c		coverage: 0.0% of statements
ok  	m/d	0.013s	coverage: [no statements]
?   	m/e	[no test files]
`
	want := []share{{"m/a", 99}, {"m/b", 100}, {"m/c", 0}}
	if got := shares([]byte(out)); !slices.Equal(got, want) {
		t.Errorf("shares %v, want %v", got, want)
	}
}

func TestBelowTheMark(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"go.mod":    "module m\n\ngo 1.26\n",
		"a.go":      "package m\n\nfunc A(b bool) int {\n\tif b {\n\t\treturn 1\n\t}\n\treturn 2\n}\n",
		"a_test.go": "package m\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { A(false) }\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for percent, want := range map[float64]bool{60: true, 70: false} {
		var out strings.Builder
		reached, err := run(t.Context(), &out, []mark{{".", percent}})
		if err != nil || reached != want || strings.Contains(out.String(), "below") == want || !strings.Contains(out.String(), "66.7%") {
			t.Errorf("with %.0f %%: reached %v, %v\n%s", percent, reached, err, out.String())
		}
	}
	if _, err := run(t.Context(), &strings.Builder{}, []mark{{"./nowhere", 50}}); err == nil {
		t.Error("no package, no error")
	}
}
