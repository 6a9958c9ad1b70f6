package link

import "strings"

// option is one of the options of a link, which are separated by commas: key=value.
type option struct{ key, value string }

// cutOptions takes an argument apart. A part without an equals sign has no key.
func cutOptions(arg string) []option {
	var options []option
	for part := range strings.SplitSeq(arg, ",") {
		key, value, found := strings.Cut(part, "=")
		if !found {
			key, value = "", part
		}
		options = append(options, option{key, value})
	}
	return options
}

// onOff reads the value of a switch.
func (o option) onOff() (bool, error) {
	switch o.value {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, because(ErrSpec, "bad value %q for %s: write %s=on or %s=off", o.value, o.key, o.key, o.key)
}
