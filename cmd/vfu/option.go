package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// form is what a value looks like in a file.
type form uint8

const (
	text form = iota
	integer
	boolean
	texts // a list, on the command line separated by commas
)

// option is something that can be said of a device or of the process: --name VALUE on the
// command line, name = VALUE in a file.
type option struct {
	name string
	// key replaces name in a file. "table.key" stands in a table of the device's own, of
	// which there may be several; the first option of such a table begins it.
	key    string
	form   form
	value  string // what help calls the value
	usage  string
	begins bool // on the command line it begins a device
	set    func(string) error
}

// fileKey is the option's key in a file.
func (o *option) fileKey() string {
	if o.key != "" {
		return o.key
	}
	return o.name
}

// flagValue is an option as the command line has it.
type flagValue struct {
	option
	apply func(string) error
}

func (f flagValue) String() string     { return "" }
func (f flagValue) Set(s string) error { return f.apply(s) }

func (f flagValue) Type() string {
	if f.form == boolean {
		return "bool" // help then shows no value
	}
	return f.value
}

// add makes the option a flag that does apply.
func (o option) add(f *pflag.FlagSet, apply func(string) error) {
	f.Var(flagValue{o, apply}, o.name, o.usage)
	if o.form == boolean {
		f.Lookup(o.name).NoOptDefVal = "true"
	}
}

// errOutside is for an option of a device that stands before any device.
var errOutside = errors.New("stands before the first --socket or --fd, and so belongs to no device")

// deviceFlags has the command line describe devices of a kind: each option that begins one
// appends it to the list, and those that follow are its own.
func deviceFlags(f *pflag.FlagSet, k kind, list *[]device) {
	f.SortFlags = false
	// The name that vfio-user gives it for all programs (specification, "Backend Program Conventions").
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "socket-path" {
			name = "socket"
		}
		return pflag.NormalizedName(name)
	})
	for i, o := range k.make().options() {
		o.add(f, func(s string) error {
			if o.begins {
				*list = append(*list, k.make())
			}
			if len(*list) == 0 {
				return errOutside
			}
			return (*list)[len(*list)-1].options()[i].set(s)
		})
	}
}

// between takes a number from low to high.
func between(low, high int, set func(int)) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return fmt.Errorf("must be from %d to %d", low, high)
		}
		set(n)
		return nil
	}
}

// oneOf takes one of some numbers.
func oneOf(to *int, numbers ...int) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains(numbers, n) {
			var words []string
			for _, n := range numbers {
				words = append(words, strconv.Itoa(n))
			}
			last := len(words) - 1
			return fmt.Errorf("must be %s or %s", strings.Join(words[:last], ", "), words[last])
		}
		*to = n
		return nil
	}
}

// yesOrNo takes true or false.
func yesOrNo(set func(bool)) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("must be true or false")
		}
		set(v)
		return nil
	}
}

// pause takes a time that is more than none.
func pause(set func(time.Duration)) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New("must be a time such as 500us or 10ms")
		}
		set(d)
		return nil
	}
}
