package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	// maxConfig bounds a configuration file, in bytes.
	maxConfig = 256 << 10
	// maxDevices bounds how many devices a file describes.
	maxDevices = 4096
	// maxMistakes bounds how many mistakes of a file are told.
	maxMistakes = 10
)

// readConfig reads what a file says of the process and of its devices. What the command
// line has said of the process already, stays.
func readConfig(path string, p *process, said func(option string) bool) ([]device, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	return parseConfig(path, data, p, said)
}

func parseConfig(path string, data []byte, p *process, said func(option string) bool) ([]device, error) {
	var top map[string]any
	if err := toml.Unmarshal(data, &top); err != nil {
		var syntax *toml.DecodeError
		if errors.As(err, &syntax) {
			line, column := syntax.Position()
			return nil, usageError{fmt.Errorf("%s:%d:%d: %s", path, line, column, strings.TrimPrefix(syntax.Error(), "toml: "))}
		}
		return nil, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	options := p.options()
	ignored := newProcess().options()
	for i, o := range options {
		if said(o.name) {
			options[i] = ignored[i] // to be right it has nevertheless
		}
	}
	c := configFile{path: path, lines: linesOf(data)}
	c.read(top, options)
	if err := c.err(); err != nil {
		return nil, err
	}
	if len(c.devices) == 0 {
		return nil, usageError{fmt.Errorf("%s: describes no device: add [[%s]]", path, strings.Join(kindNames(), "]] or [["))}
	}
	return c.devices, check(c.devices, p.control)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxConfig:
		return nil, usageError{fmt.Errorf("%s: is larger than 256 KiB, which no configuration is", path)}
	case bytes.IndexByte(data, 0) >= 0:
		return nil, usageError{fmt.Errorf("%s: is not a text file", path)}
	}
	return data, nil
}

// configFile is a file on its way into options.
type configFile struct {
	path     string
	lines    map[string]int // by path of a key or table, see linesOf
	devices  []device
	mistakes []mistake
}

type mistake struct {
	line int
	says string
}

// wrong notes what is wrong with a key or a table.
func (c *configFile) wrong(path, format string, args ...any) {
	c.mistakes = append(c.mistakes, mistake{c.lines[path], printable(fmt.Sprintf(format, args...))})
}

// err tells the mistakes in the order of the file.
func (c *configFile) err() error {
	slices.SortStableFunc(c.mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, m := range c.mistakes {
		if i == maxMistakes {
			errs = append(errs, fmt.Errorf("%s: and %d more mistakes", c.path, len(c.mistakes)-i))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s", c.path, m.line, m.says))
	}
	if errs == nil {
		return nil
	}
	return usageError{errors.Join(errs...)}
}

// table is a table of the file.
type table struct {
	path  string // "nvme[0]", empty for the file itself
	name  string // "nvme"
	value map[string]any
}

// title is how the file begins the table, and in errors what stands behind a key.
func (t *table) title() string {
	if t.name == "" {
		return "the file"
	}
	return "[[" + t.name + "]]"
}

func (t *table) of(key string) string { return join(t.path, key) }

// read takes all of the file: devices in its order, whatever their kinds.
func (c *configFile) read(top map[string]any, options []option) {
	file := table{value: top}
	type described struct {
		table
		kind kind
	}
	var list []described
	for _, k := range kinds() {
		for _, t := range c.tables(&file, k.name) {
			list = append(list, described{t, k})
		}
	}
	slices.SortStableFunc(list, func(a, b described) int { return cmp.Compare(c.lines[a.path], c.lines[b.path]) })
	if len(list) > maxDevices {
		c.wrong(list[maxDevices].path, "%d devices; one process serves at most %d", len(list), maxDevices)
		list = nil
	}
	for _, l := range list {
		d := l.kind.make()
		d.base().at = fmt.Sprintf("%s:%d", c.path, c.lines[l.path])
		c.devices = append(c.devices, d)
		c.fill(&l.table, d.options())
	}
	c.fill(&file, options, kindNames()...)
}

// tables takes an array of tables out of a table.
func (c *configFile) tables(in *table, key string) (list []table) {
	v, ok := in.value[key]
	if !ok {
		return nil
	}
	delete(in.value, key)
	name := join(in.name, key)
	array, ok := v.([]any)
	for i, e := range array {
		value, is := e.(map[string]any)
		list = append(list, table{element(in.of(key), i), name, value})
		ok = ok && is
	}
	if !ok {
		c.wrong(in.of(key), "%s must be tables, each begun by [[%s]]", key, name)
		return nil
	}
	return list
}

// fill sets options by the keys of a table. Keys that the caller took out of it are known
// by other names.
func (c *configFile) fill(t *table, options []option, others ...string) {
	var known []string
	for i, o := range options {
		key := o.fileKey()
		if inner, _, ok := strings.Cut(key, "."); ok {
			if !slices.Contains(known, inner) {
				known = append(known, inner)
				c.fillInner(t, inner, options[i:])
			}
			continue
		}
		known = append(known, key)
		c.apply(t, key, o)
	}
	known = append(known, others...)
	for _, key := range slices.Sorted(maps.Keys(t.value)) {
		c.wrong(t.of(key), "%.40q is nothing that %s can have; known are %s", key, t.title(), strings.Join(known, ", "))
	}
}

// fillInner sets the options that stand in tables of a table.
func (c *configFile) fillInner(t *table, name string, options []option) {
	var own []option
	for _, o := range options {
		if key, ok := strings.CutPrefix(o.fileKey(), name+"."); ok {
			o.key = key
			own = append(own, o)
		}
	}
	for _, inner := range c.tables(t, name) {
		// Without what begins it the rest would be said of the table before.
		begin := own[0].key
		v, ok := inner.value[begin]
		if !ok {
			c.wrong(inner.path, "%s has no %s", inner.title(), begin)
			continue
		}
		if _, err := own[0].form.string(v); err != nil {
			c.apply(&inner, begin, own[0])
			continue
		}
		c.fill(&inner, own)
	}
}

// apply sets an option if the table has its key, which it takes out.
func (c *configFile) apply(t *table, key string, o option) {
	v, ok := t.value[key]
	if !ok {
		return
	}
	delete(t.value, key)
	s, err := o.form.string(v)
	if err == nil {
		err = o.set(s)
	}
	if err != nil {
		c.wrong(t.of(key), "%s in %s: %v", key, t.title(), err)
	}
}

// string is a value of a file as an option takes it.
func (f form) string(v any) (string, error) {
	switch v := v.(type) {
	case string:
		if f == text {
			return v, nil
		}
	case int64:
		if f == integer {
			return fmt.Sprint(v), nil
		}
	case bool:
		if f == boolean {
			return fmt.Sprint(v), nil
		}
	case []any:
		if f == texts {
			return joined(v)
		}
	}
	return "", errors.New([...]string{
		text:    "must be text between quotes",
		integer: "must be a whole number, without quotes",
		boolean: "must be true or false, without quotes",
		texts:   notTexts,
	}[f])
}

const notTexts = "must be a list of text between quotes, in brackets"

func joined(values []any) (string, error) {
	parts := make([]string, len(values))
	for i, v := range values {
		var ok bool
		if parts[i], ok = v.(string); !ok {
			return "", errors.New(notTexts)
		}
	}
	return strings.Join(parts, ","), nil
}
