package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"vfiouser/fuzz/choice"
)

// setting is a key of a table, with a value.
type setting struct {
	keyValues
	arg   string // of the option on the command line, if it is right
	value string // as TOML has it, if it is wrong
	says  string // of what is wrong
}

// describedDevice is a table of a device.
type describedDevice struct {
	kind       string
	settings   []setting
	namespaces [][]setting
	line       int
}

// configText writes a file, and knows what it says and what is wrong with that.
type configText struct {
	src      *choice.Source
	sloppy   bool // values are wrong here and there
	absurd   bool // all values are right, but what they describe cannot be
	text     strings.Builder
	line     int // the next character's
	process  []setting
	devices  []*describedDevice
	mistakes []mistake
}

// newConfigText makes a file of one device or a few, often a right one.
func newConfigText(src *choice.Source) *configText {
	c := &configText{src: src, line: 1}
	switch src.Intn(4) {
	case 2:
		c.sloppy = true
	case 3:
		c.absurd = true
	}
	c.process = c.some(processKeys, 3)
	n := 1 + src.Intn(4)
	if src.Odds(16) {
		n += 12
	}
	for i := range n {
		if src.Odds(3) {
			c.devices = append(c.devices, c.card(i))
		} else {
			c.devices = append(c.devices, c.controller(i))
		}
	}
	inline := ""
	if src.Odds(4) {
		inline = choice.Pick(src, "nvme", "virtio-net")
	}
	c.settings(c.process, "\n")
	c.inlineDevices(inline)
	for _, d := range c.devices {
		if d.kind != inline {
			c.write("[[" + d.kind + "]]")
			d.line = c.line
			c.write(c.comment() + "\n")
			c.device(d, "\n")
		}
	}
	slices.SortStableFunc(c.devices, func(a, b *describedDevice) int { return a.line - b.line })
	return c
}

func (c *configText) write(s string) {
	c.text.WriteString(s)
	c.line += strings.Count(s, "\n")
}

// wrong notes a mistake on the present line.
func (c *configText) wrong(format string, args ...any) {
	c.mistakes = append(c.mistakes, mistake{c.line, fmt.Sprintf(format, args...)})
}

// slip is true once in n times where values may be wrong, folly where sense may.
func (c *configText) slip(n int) bool  { return c.sloppy && c.src.Odds(n) }
func (c *configText) folly(n int) bool { return c.absurd && c.src.Odds(n) }

// some gives some of the keys their values, one in so many.
func (c *configText) some(keys []keyValues, one int) (list []setting) {
	for _, k := range keys {
		if c.src.Odds(one) {
			list = append(list, c.setting(k))
		}
	}
	if c.slip(5) {
		key := choice.Pick(c.src, "sockets", "Queues", "include", "x y")
		list = append(list, setting{keyValues: keyValues{key: key}, value: "1", says: strconv.Quote(key) + " is nothing that "})
	}
	for i := range list {
		j := c.src.Intn(i + 1)
		list[i], list[j] = list[j], list[i]
	}
	return list
}

func (c *configText) setting(k keyValues) setting {
	if c.slip(5) {
		return setting{keyValues: k, value: choice.Pick(c.src, k.wrong...), says: k.key + " in "}
	}
	return setting{keyValues: k, arg: choice.Pick(c.src, k.right...)}
}

// places are where a device is served: in one place.
func (c *configText) places(i int) (list []setting) {
	socket, fd := socketKey, fdKey
	socket.right = []string{fmt.Sprintf("/run/%c", 'a'+i)}
	fd.right = []string{strconv.Itoa(3 + i)}
	if c.folly(6) {
		socket.right, fd.right = []string{"/run/./b", "/run//b", "/run/b"}, []string{"4"}
	}
	byFD := c.src.Odds(4)
	if !byFD && !c.folly(12) {
		list = append(list, c.setting(socket))
	}
	if byFD || c.slip(12) {
		s := c.setting(fd)
		if s.says == "" && len(list) > 0 && list[0].says == "" {
			s.says, s.value = "fd in ", s.arg
		}
		list = append(list, s)
	}
	return list
}

func (c *configText) card(i int) *describedDevice {
	d := &describedDevice{kind: "virtio-net", settings: c.places(i)}
	if !c.folly(8) {
		d.settings = append(d.settings, c.setting(linkKey))
	}
	d.settings = append(d.settings, c.some(cardKeys, 3)...)
	return d
}

func (c *configText) controller(i int) *describedDevice {
	keys := nvmeKeys
	if c.absurd && i > 0 {
		keys = []keyValues{{"subsystem", text, []string{"s"}, nil}, {"pool", text, []string{"mem:1G", "mem:2G"}, nil}}
	}
	d := &describedDevice{kind: "nvme", settings: append(c.places(i), c.some(keys, len(keys)/2)...)}
	if c.slip(16) {
		d.settings = append(d.settings, setting{keyValues: keyValues{key: "namespace"}, value: choice.Pick(c.src, `"mem:1M"`, "[1]", `[["mem:1M"]]`),
			says: "namespace must be tables, each begun by [[nvme.namespace]]"})
		return d
	}
	for range c.src.Intn(4) {
		d.namespaces = append(d.namespaces, c.namespace())
	}
	if len(d.namespaces) == 0 && !c.folly(3) {
		d.namespaces = append(d.namespaces, c.namespace())
	}
	return d
}

func (c *configText) namespace() (list []setting) {
	if c.absurd || c.sloppy {
		list = c.some(formatKeys, 5)
	} else { // a format that there is
		for i, value := range choice.Pick(c.src, []string{"512", "8", "false", "1", "16", "0"}, []string{"4096", "64", "true", "3", "16", "0"},
			[]string{"4096", "16", "true", "1", "64", "16"}, []string{"512", "0", "false", "0", "16", "0"}) {
			list = append(list, setting{keyValues: formatKeys[i], arg: value})
		}
	}
	if c.slip(12) {
		return list
	}
	backend := c.setting(backendKey)
	return slices.Insert(list, c.src.Intn(len(list)+1), backend)
}

// inlineDevices writes those of a kind as one array.
func (c *configText) inlineDevices(kind string) {
	list := slices.Clone(c.devices)
	list = slices.DeleteFunc(list, func(d *describedDevice) bool { return d.kind != kind })
	if len(list) == 0 {
		return
	}
	c.write(kind + " = [" + c.space())
	for i, d := range list {
		if i > 0 {
			c.write("," + c.space())
		}
		d.line = c.line
		c.write("{ ")
		c.device(d, ", ")
		c.write(" }")
	}
	c.write(c.space() + "]\n")
}

// space is where a line may end.
func (c *configText) space() string { return choice.Pick(c.src, " ", " ", "\n", " # and\n\t") }

func (c *configText) comment() string { return choice.Pick(c.src, "", "", " # \"x\" = [[") }

// device writes what stands in a device's table.
func (c *configText) device(d *describedDevice, end string) {
	c.settings(d.settings, end)
	if end == "\n" && c.src.Bool() {
		for _, n := range d.namespaces {
			c.write("[[nvme.namespace]]")
			wrong := c.beginNamespace(n)
			c.write(c.comment() + "\n")
			c.namespaceSettings(n, end, wrong)
		}
		return
	}
	if len(d.namespaces) == 0 {
		return
	}
	if end != "\n" && len(d.settings) > 0 {
		c.write(end)
	}
	c.write("namespace = [" + c.space())
	for i, n := range d.namespaces {
		if i > 0 {
			c.write("," + c.space())
		}
		wrong := c.beginNamespace(n)
		c.write("{")
		c.namespaceSettings(n, ", ", wrong)
		c.write("}")
	}
	c.write(c.space() + "]")
	if end == "\n" {
		c.write(end)
	}
}

// beginNamespace says whether no more than its backend can be wrong, and notes if there is none.
func (c *configText) beginNamespace(n []setting) (backendOnly bool) {
	i := slices.IndexFunc(n, func(s setting) bool { return s.key == "backend" })
	if i < 0 {
		c.wrong("[[nvme.namespace]] has no backend")
		return true
	}
	return n[i].says != "" && !strings.HasPrefix(n[i].value, `"`)
}

// namespaceSettings writes a namespace's. Of one that has not begun nothing more is told.
func (c *configText) namespaceSettings(n []setting, end string, backendOnly bool) {
	if backendOnly {
		n = slices.Clone(n)
		for i := range n {
			if n[i].key != "backend" {
				n[i].says = ""
			}
		}
	}
	c.settings(n, end)
}

// settings writes keys and values.
func (c *configText) settings(list []setting, end string) {
	for i, s := range list {
		if i > 0 && end != "\n" {
			c.write(end)
		}
		key := s.key
		if strings.Contains(key, " ") || c.src.Odds(12) {
			key = `"` + key + `"`
		}
		c.write(key + " = ")
		if s.says != "" {
			c.wrong("%s", s.says)
		}
		value := s.value
		if value == "" {
			value = c.literal(s.form, s.arg)
		}
		c.write(value)
		if end == "\n" {
			c.write(c.comment() + "\n")
		}
	}
}

// literal spells a value in one of TOML's ways.
func (c *configText) literal(f form, arg string) string {
	switch f {
	case boolean:
		return arg
	case integer:
		n, err := strconv.Atoi(arg)
		if err == nil && c.src.Odds(4) {
			return choice.Pick(c.src, fmt.Sprintf("0x%x", n), fmt.Sprintf("0b%b", n), "+"+arg)
		}
		return arg
	case texts:
		var parts []string
		if arg != "" {
			parts = strings.Split(arg, ",")
		}
		for i, p := range parts {
			parts[i] = c.literal(text, p)
		}
		return "[" + strings.Join(parts, ","+c.space()) + "]"
	}
	if arg != "" && c.src.Odds(8) {
		return fmt.Sprintf(`"\u%04x%s"`, arg[0], arg[1:])
	}
	return choice.Pick(c.src, `"`+arg+`"`, `"`+arg+`"`, `'`+arg+`'`, `"""`+arg+`"""`)
}
