package main

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/pflag"

	virtionet "vfiouser/devices/virtio-net"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/link"
)

// FuzzConfig are files as people write them, with their mistakes. Of these each is told, by the key
// and the line that it is on, and nothing else is. What has none describes the same devices as the
// command line does that says the same; and what is read can be printed, and read again.
//
//fuzz:covers cmd/vfu/config.go cmd/vfu/configlines.go cmd/vfu/option.go cmd/vfu/device.go cmd/vfu/subsystem.go cmd/vfu/servenvme.go cmd/vfu/servevirtionet.go cmd/vfu/process.go
func FuzzConfig(f *testing.F) {
	choice.Corpus(f, 500, 600)
	f.Fuzz(func(t *testing.T, program []byte) {
		c := newConfigText(choice.FromBytes(program[:min(len(program), 4000)]))
		content := c.text.String()
		p := newProcess()
		list, err := parseConfig("vfu.toml", []byte(content), p, unsaid)
		if len(c.mistakes) > 0 {
			equalMistakes(t, content, err, c.mistakes)
			return
		}
		if wrong := c.contradictions(); len(wrong) > 0 {
			if err == nil || !slices.ContainsFunc(wrong, func(m mistake) bool { return m.told(err.Error()) }) {
				t.Fatalf("%s\nsays %v, want one of %+v", content, err, wrong)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s\nsays %v", content, err)
		}
		c.sameAsCommandLine(t, content, p, list)
		printedAgain(t, content, p, list)
	})
}

// FuzzConfigText are files of any kind. What is wrong is told in lines that can be printed, with the
// line of the file; what is read can be printed, and read again.
//
//fuzz:covers cmd/vfu/config.go cmd/vfu/configlines.go
func FuzzConfigText(f *testing.F) {
	example, _ := documented(f)
	f.Add(example)
	f.Add("[[nvme]]\nsocket = \"s\"\n[[nvme.namespace]]\nbackend = \"null:1G\"\n")
	f.Add("nvme = [{fd = 3, namespace = [{backend = 'mem:1G', block-size = 512}]}]")
	f.Add("[[nvme]]\nfd = 3\nqueues = 1\nqueues =")
	f.Add("[nvme]\nnamespace.a.b = [[{}]]")
	f.Add("[[nvme]]\nsocket = \"\\u001b[2J\"\n[[nvme]]\nsocket = \"\\u001b[2J\"\n")
	told := regexp.MustCompile(`^vfu\.toml:([0-9]+:){1,2} .|^vfu\.toml: (describes no device|and [0-9]+ more mistakes$)`)
	f.Fuzz(func(t *testing.T, content string) {
		if len(content) > 16<<10 {
			return
		}
		p := newProcess()
		list, err := parseConfig("vfu.toml", []byte(content), p, unsaid)
		if err == nil {
			if len(list) == 0 {
				t.Fatal("no device, and no error")
			}
			printedAgain(t, content, p, list)
			return
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) > maxMistakes+1 {
			t.Fatalf("%d mistakes are told", len(lines))
		}
		for _, line := range lines {
			unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
			if !told.MatchString(line) || strings.ContainsFunc(line, unprintable) {
				t.Fatalf("an error says %q", line)
			}
			_, at, _ := strings.Cut(line, ":")
			at, _, _ = strings.Cut(at, ":")
			if n, err := strconv.Atoi(at); err == nil && (n < 1 || n > 1+strings.Count(content, "\n")) {
				t.Fatalf("a line that there is not: %s", line)
			}
		}
	})
}

// told says whether a line of an error is about the mistake.
func (m mistake) told(line string) bool {
	return strings.HasPrefix(line, fmt.Sprintf("vfu.toml:%d: ", m.line)) && strings.Contains(line, m.says)
}

// equalMistakes compares what is told with what is wrong: the first ten in the order of the file.
func equalMistakes(t *testing.T, content string, err error, want []mistake) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s\nnothing is said of %+v", content, want)
	}
	lines := strings.Split(err.Error(), "\n")
	slices.SortStableFunc(want, func(a, b mistake) int { return a.line - b.line })
	if more := len(want) - maxMistakes; more > 0 {
		if last := lines[len(lines)-1]; last != fmt.Sprintf("vfu.toml: and %d more mistakes", more) {
			t.Fatalf("%s\nsays %q in the end, of %d mistakes", content, last, len(want))
		}
		lines = lines[:len(lines)-1]
	}
	if len(lines) != min(len(want), maxMistakes) {
		t.Fatalf("%s\nsays %q, want %+v", content, lines, want)
	}
	left := slices.Clone(want)
	for i, line := range lines {
		// Those of one line may come in any order.
		j := slices.IndexFunc(left, func(m mistake) bool { return m.line == want[i].line && m.told(line) })
		if j < 0 {
			t.Fatalf("%s\nsays %q, want %+v", content, lines, want)
		}
		left = slices.Delete(left, j, j+1)
	}
}

func sameDevices(t *testing.T, content string, got, want []device) {
	t.Helper()
	for _, d := range got {
		d.base().at = ""
	}
	if len(got) != len(want) {
		t.Fatalf("%s\n%d devices, want %d", content, len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("%s\ndevice %d is %+v, want %+v", content, i, got[i], want[i])
		}
	}
}

// sameAsCommandLine says the same with flags, of devices in the order of the file.
func (c *configText) sameAsCommandLine(t *testing.T, content string, p *process, list []device) {
	t.Helper()
	want, flags, args := newProcess(), pflag.NewFlagSet("vfu", pflag.ContinueOnError), []string(nil)
	for _, o := range want.options() {
		o.add(flags, o.set)
	}
	for _, s := range c.process {
		args = append(args, s.argument())
	}
	if err := flags.Parse(args); err != nil || *p != *want {
		t.Fatalf("%s\nis the process %+v, want %+v (%v)", content, *p, *want, err)
	}
	byKind := map[string][]device{}
	for _, k := range kinds() {
		var list []device
		flags, args := pflag.NewFlagSet(k.name, pflag.ContinueOnError), []string(nil)
		deviceFlags(flags, k, &list)
		for _, d := range c.devices {
			if d.kind == k.name {
				args = append(args, d.arguments()...)
			}
		}
		if err := flags.Parse(args); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		byKind[k.name] = list
	}
	var devices []device
	for _, d := range c.devices {
		devices = append(devices, byKind[d.kind][0])
		byKind[d.kind] = byKind[d.kind][1:]
	}
	sameDevices(t, content, list, devices)
}

// printedAgain prints what was read, and reads it.
func printedAgain(t *testing.T, content string, p *process, list []device) {
	t.Helper()
	var b strings.Builder
	say := func(key, value string, zero ...string) {
		if !slices.Contains(zero, value) {
			fmt.Fprintf(&b, "%s = %s\n", key, value)
		}
	}
	say("log-level", quoted(p.logLevel.String()))
	say("log-format", map[bool]string{false: `"text"`, true: `"json"`}[p.logJSON])
	say("write-multiple", fmt.Sprint(p.writeMultiple))
	say("workers", fmt.Sprint(p.workers), "0")
	say("control", quoted(p.control), `""`)
	for _, d := range list {
		b.WriteString("[[" + d.kind() + "]]\n")
		say("socket", quoted(d.base().place.path), `""`)
		if d.base().place.path == "" {
			say("fd", fmt.Sprint(d.base().place.fd))
		}
		if c, ok := d.(*card); ok {
			say("link", quoted(c.link))
			say("mac", quoted(c.config.MAC.String()), `""`)
			say("queues", fmt.Sprint(c.config.Pairs), "0")
			say("queue-size", fmt.Sprint(c.config.QueueSize), "0")
			say("mtu", fmt.Sprint(c.config.MTU), "0")
			say("speed", fmt.Sprint(c.config.Speed), "0")
			say("doorbells", quoted(c.config.Doorbells.String()))
			say("idle-poll", quoted(c.config.IdlePoll.String()), `"0s"`)
			say(printedFeatures(t, c.config.Without))
			continue
		}
		c := d.(*controller)
		say("queues", fmt.Sprint(c.config.Queues), "0")
		say("doorbells", quoted(c.config.Doorbells.String()))
		say("idle-poll", quoted(c.config.IdlePoll.String()), `"0s"`)
		say("incoming", fmt.Sprint(c.incoming))
		for _, s := range [][2]string{{"serial", c.serial}, {"subsystem", c.subsystem}, {"pool", c.pool}, {"state-dir", c.stateDir}} {
			say(s[0], quoted(s[1]), `""`)
		}
		for _, n := range c.namespaces {
			b.WriteString("[[nvme.namespace]]\n")
			say("backend", quoted(n.backend))
			say("extended", fmt.Sprint(n.format.Extended))
			say("block-size", fmt.Sprint(n.format.BlockSize))
			say("metadata", fmt.Sprint(n.format.Metadata))
			say("protection", fmt.Sprint(n.format.Protection))
			say("guard", fmt.Sprint(n.format.Guard), "0")
			say("storage-tag", fmt.Sprint(n.format.StorageTag))
		}
	}
	again := newProcess()
	other, err := parseConfig("printed.toml", []byte(b.String()), again, unsaid)
	if err != nil {
		t.Fatalf("%s\nis printed as\n%s\nwhich is %v", content, b.String(), err)
	}
	if *p != *again {
		t.Fatalf("%s\nis the process %+v, and %+v when it was printed", content, *p, *again)
	}
	for _, d := range other {
		d.base().at = ""
	}
	sameDevices(t, content, list, other)
}

// printedFeatures says which features a card is without.
func printedFeatures(t *testing.T, without uint64) (key, value string) {
	t.Helper()
	everything, err := virtionet.New(virtionet.Config{Link: link.Null(), Pairs: 2, MTU: netspec.MinMTU})
	if err != nil {
		t.Fatal(err)
	}
	known := everything.Features()
	if err := everything.Close(); err != nil {
		t.Fatal(err)
	}
	key, features := "without-features", without
	if without&^known != 0 {
		key, features = "features", known&^without
	}
	names := featureNames(netspec.DeviceType, features)
	for i, name := range names {
		names[i] = quoted(name)
	}
	return key, "[" + strings.Join(names, ", ") + "]"
}

// quoted is text as TOML has it.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r == '"' || r == '\\' || r < 0x20 || r == 0x7f {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}
