package profile

import (
	"maps"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	const text = `mode: set
m/a/x.go:1.2,3.4 2 1
m/a/x.go:5.2,6.4 3 0
m/a/y.go:1.2,3.4 5 0
mode: set
m/a/x.go:1.2,3.4 2 0
m/a/y.go:1.2,3.4 5 1
`
	got, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Count{"m/a/x.go": {2, 5}, "m/a/y.go": {5, 5}}
	if !maps.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	if p := got["m/a/x.go"].Percent(); p != 40 {
		t.Errorf("%v %%, want 40", p)
	}
}

func TestReadRefusesOtherText(t *testing.T) {
	for _, text := range []string{"m/a/x.go 2 1", "m/a/x.go:1.2,3.4 two 1", "m/a/x.go:1.2,3.4 2", "a b:1 2"} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q is a profile", text)
		}
	}
}
