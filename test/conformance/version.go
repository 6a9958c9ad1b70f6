package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// matchVersion checks the reply to VERSION: its numbers, that the rest is a JSON object
// with a NUL behind it, and members of its capabilities against NAME=PATTERN, where the
// pattern may also be true, false, object or absent, and maybe:PATTERN allows absence.
func (w *words) matchVersion(b []byte, sc scope) error {
	for _, f := range layouts["VERSION"].fields {
		var err error
		if b, err = w.matchField(b, f, sc); err != nil {
			return err
		}
	}
	for name := range w.fields {
		return fmt.Errorf("VERSION has no field %s", name)
	}
	top := map[string]any{}
	if len(b) > 0 {
		text, ok := bytes.CutSuffix(b, []byte{0})
		if !ok || bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
			return fmt.Errorf("version data %q is not UTF-8 with one NUL at its end", b)
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&top); err != nil || top == nil {
			return fmt.Errorf("version data %q is not a JSON object", text)
		}
	}
	for _, c := range w.caps {
		name, want, _ := strings.Cut(c, "=")
		if err := matchMember(top, "capabilities."+name, want, sc); err != nil {
			return fmt.Errorf("capability %s %w", name, err)
		}
	}
	return nil
}

// matchMember checks one member of an object, found by a path with dots.
func matchMember(o map[string]any, path, want string, sc scope) error {
	name, rest, deeper := strings.Cut(path, ".")
	v, there := o[name]
	if then, maybe := strings.CutPrefix(want, "maybe:"); maybe {
		if !there {
			return nil
		}
		if !deeper {
			want = then
		}
	}
	if deeper && there {
		next, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("is not in an object")
		}
		return matchMember(next, rest, want, sc)
	}
	switch v := v.(type) {
	case nil:
		if there || want != "absent" {
			return fmt.Errorf("is missing, want %s", want)
		}
	case bool:
		if strconv.FormatBool(v) != want {
			return fmt.Errorf("is %v, want %s", v, want)
		}
	case map[string]any:
		if want != "object" {
			return fmt.Errorf("is an object, want %s", want)
		}
	case json.Number:
		n, err := strconv.ParseUint(v.String(), 10, 64)
		if err != nil {
			return fmt.Errorf("is %v, want %s", v, want)
		}
		if want == "absent" {
			return fmt.Errorf("is %d, want none", n)
		}
		return sc.match(want, n)
	default:
		return fmt.Errorf("is %v, want %s", v, want)
	}
	return nil
}
