package result

import (
	"regexp"
	"strconv"
	"strings"
)

// MaxName is the longest name of a case, in bytes.
const MaxName = 200

// namePattern keeps names harmless on a terminal and in a page.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_:,.+/=-]+$`)

func validName(name string) bool { return len(name) <= MaxName && namePattern.MatchString(name) }

// Layer is the first element of a name.
func Layer(name string) string {
	layer, _, _ := strings.Cut(name, "/")
	return layer
}

// Axis is a numeric element of a name, such as depth=32.
type Axis struct {
	Key   string
	Value float64
}

// Axes are those of a name, in order.
func Axes(name string) (axes []Axis) {
	for element := range strings.SplitSeq(name, "/") {
		key, text, ok := strings.Cut(element, "=")
		if value, err := strconv.ParseFloat(text, 64); ok && err == nil {
			axes = append(axes, Axis{key, value})
		}
	}
	return axes
}

// Without is the name less one axis: what all points of a curve along it have in common.
func Without(name, key string) string {
	var rest []string
	for element := range strings.SplitSeq(name, "/") {
		if k, _, ok := strings.Cut(element, "="); !ok || k != key {
			rest = append(rest, element)
		}
	}
	return strings.Join(rest, "/")
}
