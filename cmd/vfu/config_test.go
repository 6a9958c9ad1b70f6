package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"vfiouser/devices/nvme"
	"vfiouser/devices/virtio"
	virtionet "vfiouser/devices/virtio-net"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
)

func unsaid(string) bool { return false }

func configOf(t testing.TB, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "vfu.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// documented is the example of docs/config.md, and all of that page.
func documented(t testing.TB) (example, page string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	page = string(text)
	_, after, _ := strings.Cut(page, "```toml\n")
	example, _, ok := strings.Cut(after, "```\n")
	if !ok {
		t.Fatal("docs/config.md has no example")
	}
	return example, page
}

func TestDocumentedConfig(t *testing.T) {
	example, page := documented(t)
	p := newProcess()
	list, err := readConfig(configOf(t, example), p, unsaid)
	if err != nil {
		t.Fatal(err)
	}
	if want := (process{slog.LevelInfo, true, 2, false, "/run/vfu/control.sock"}); *p != want {
		t.Errorf("process %+v, want %+v", *p, want)
	}
	for _, d := range list {
		d.base().at = ""
	}
	want := []device{
		&controller{common: common{place: &place{path: "/run/vfu/disk0.sock"}}, namespaces: []namespace{{"mem:1G", nvme.Namespace{BlockSize: 512}}}},
		&controller{common: common{place: &place{path: "/run/vfu/disk1.sock"}}, namespaces: []namespace{
			{"null:64G", nvme.Namespace{BlockSize: 4096, Metadata: 16, Extended: true, Protection: 1, Guard: 64, StorageTag: 16}}, {"mem:256M", nvme.Namespace{BlockSize: 512}}},
			serial: "VFU0001", subsystem: "s", pool: "dir:/srv/vfu:64G", stateDir: "/var/lib/vfu/disk1",
			config: nvme.Config{Queues: 8, Doorbells: nvme.Mmap, IdlePoll: 500 * time.Microsecond}},
		&controller{common: common{place: &place{path: "/run/vfu/disk1b.sock"}}, subsystem: "s"},
		&card{common: common{place: &place{path: "/run/vfu/net0.sock"}}, link: "switch:lan"},
		&card{common: common{place: &place{path: "/run/vfu/net1.sock"}}, link: "switch:lan", config: virtionet.Config{
			MAC: net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}, Pairs: 4, QueueSize: 512, MTU: 9000, Speed: 25_000,
			Doorbells: virtio.Trap, IdlePoll: 200 * time.Microsecond, Without: spec.FeatureRingPacked | spec.FeatureInOrder}},
		&card{common: common{place: &place{path: "/run/vfu/net2.sock"}}, link: "loop", config: virtionet.Config{
			Without: ^uint64(netspec.FeatureMAC | netspec.FeatureMrgRxBuf)}},
		&controller{common: common{place: &place{fd: 3}}, namespaces: []namespace{{"null:1G", nvme.Namespace{BlockSize: 512}}}},
	}
	if !reflect.DeepEqual(list, want) {
		for _, d := range list {
			t.Errorf("got %+v", d)
		}
	}
	options := p.options()
	for _, k := range kinds() {
		options = append(options, k.make().options()...)
	}
	for _, o := range options {
		key := o.fileKey()
		key = key[strings.Index(key, ".")+1:]
		if !strings.Contains(example, "\n"+key+" = ") && !strings.HasPrefix(example, key+" = ") {
			t.Errorf("the example has no %s", key)
		}
		if !strings.Contains(page, "`"+key+"`") {
			t.Errorf("no table of docs/config.md has %s", key)
		}
	}
}

// manyControllers describes n of one subsystem, each in four lines.
func manyControllers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[[nvme]]\nfd = %d\nsubsystem = \"a\"\npool = \"mem:1G\"\n", i)
	}
	return b.String()
}

func TestConfigSaysWhereItIsWrong(t *testing.T) {
	const nic = "[[virtio-net]]\nsocket = \"s\"\nlink = \"loop\"\n"
	const disk = "[[nvme]]\nsocket = \"s\"\nnamespace = [{backend = \"null:1G\"}]\n"
	for _, tt := range []struct {
		name, content string
		says          []string // each on a line of its own, behind the file's name
	}{
		{"empty", "", []string{": describes no device: add [[nvme]] or [[virtio-net]]"}},
		{"unknown key of the process", "sockets = 1\n" + disk, []string{`:1: "sockets" is nothing that the file can have; known are log-level, log-format, write-multiple, workers, control, nvme, virtio-net`}},
		{"unknown device", disk + "[[floppy]]\n", []string{`:4: "floppy" is nothing that the file can have`}},
		{"unknown key of a device", disk + "\nqueue = 1\n", []string{`:5: "queue" is nothing that [[nvme]] can have; known are socket, fd, namespace, queues,`}},
		{"unknown key of a namespace", "[[nvme]]\nsocket=\"s\"\n[[nvme.namespace]]\nbackend=\"null:1G\"\nblocksize=512",
			[]string{`:5: "blocksize" is nothing that [[nvme.namespace]] can have; known are backend, block-size, metadata, extended, protection, guard, storage-tag`}},
		{"two mistakes in the order of the file", "[[nvme]]\nqueues = 129\n[[nvme]]\ndoorbells = \"loud\"\n",
			[]string{":2: queues in [[nvme]]: must be from 1 to 128", `:4: doorbells in [[nvme]]: nvme: unknown doorbell mode "loud"`}},
		{"unknown key in front of a wrong value", disk + "queue = 1\nqueues = 129\n",
			[]string{`:4: "queue" is nothing that [[nvme]] can have`, ":5: queues in [[nvme]]: must be from 1 to 128"}},
		{"namespace of a second device", disk + "[[nvme]]\n[[nvme.namespace]]\nbackend = \"null:1G\"\n[[nvme.namespace]]\nbackend = \"null:1G\"\nblock-size = 1\n",
			[]string{":9: block-size in [[nvme.namespace]]: must be 512 or 4096"}},
		{"more mistakes than are told", strings.Repeat("[[nvme]]\nqueues = 0\n", 12),
			append(strings.Split(strings.Repeat("queues in [[nvme]]\n", 10), "\n")[:10], ": and 2 more mistakes")},
		{"key twice", disk + "queues = 1\nqueues = 2\n", []string{":5:1: key queues is already defined"}},
		{"no value", disk + "queues =\n", []string{":4:"}},
		{"table that is not an array", "[nvme]\nsocket = \"s\"\n", []string{":1: nvme must be tables, each begun by [[nvme]]"}},
		{"device that is no table", "nvme = [1]", []string{":1: nvme must be tables, each begun by [[nvme]]"}},
		{"namespace that is text", "[[nvme]]\nsocket = \"s\"\nnamespace = \"mem:1G\"\n", []string{":3: namespace must be tables, each begun by [[nvme.namespace]]"}},
		{"namespace without backend", "[[nvme]]\nsocket = \"s\"\n\n[[nvme.namespace]]\nblock-size = 512", []string{":4: [[nvme.namespace]] has no backend"}},
		{"namespace without backend behind another", "[[nvme]]\nnamespace = [{backend=\"null:1G\"},\n\n {block-size=512}]", []string{":4: [[nvme.namespace]] has no backend"}},
		{"namespace whose backend is no text", "[[nvme]]\nnamespace = [{backend=\"null:1G\"},\n {block-size=512, backend=5}]",
			[]string{":3: backend in [[nvme.namespace]]: must be text between quotes"}},
		{"terminal codes", strings.Repeat("[[nvme]]\nsocket=\"\\u001b[2J\"\nnamespace=[{backend=\"mem:1M\"}]\n", 2), []string{`:4: \x1b[2J is the place of the device of`}},
		{"terminal codes of a backend", "[[nvme]]\nnamespace = [{backend=\"mem\\n:1M\"}]", []string{`:2: backend in [[nvme.namespace]]: block: mem\n:1M: unknown kind`}},
		{"no namespace", "\n[[nvme]]\nsocket = \"s\"\n", []string{":2: no [[nvme.namespace]] (or pool): what should be on the disk?"}},
		{"backend", "[[nvme]]\nnamespace = [{backend=\"tape:1G\"}]\n", []string{`:2: backend in [[nvme.namespace]]: block: tape:1G: unknown kind of backend "tape"`}},
		{"format that there is not", "[[nvme]]\nsocket = \"s\"\nnamespace = [{backend=\"mem:1G\", protection=1}]\n", []string{`:1: namespace 1 of the controller: nvme: invalid configuration: no format has blocks of 512 bytes with 0 bytes of metadata`}},
		{"metadata", "[[nvme]]\nnamespace = [{backend=\"mem:1G\", metadata=7}]\n", []string{":2: metadata in [[nvme.namespace]]: must be 0, 8, 16 or 64"}},
		{"pool", disk + "pool = \"mem\"\n", []string{`:4: pool in [[nvme]]: block: pool mem: no size`}},
		{"serial", disk + "serial = \"012345678901234567890\"\n", []string{`:4: serial in [[nvme]]: nvme: invalid configuration: serial number`}},
		{"two pools of a subsystem", disk + "subsystem = \"a\"\npool = \"mem:1G\"\n[[nvme]]\nsocket = \"t\"\nsubsystem = \"a\"\npool = \"mem:2G\"\n",
			[]string{`:6: the pool of subsystem a is "mem:1G" already; say it once`}},
		{"too many controllers", manyControllers(9), []string{`:33: subsystem a has 8 controllers already`}},
		{"control socket", "control = \"\"\n" + disk, []string{":1: control in the file: is empty"}},
		{"no socket", disk + "[[nvme]]\n", []string{":4: no socket (or fd): where should the device be served?"}},
		{"socket and descriptor", disk + "fd = 3\n", []string{":4: fd in [[nvme]]: a device has one socket or fd, not both"}},
		{"empty socket", "[[nvme]]\nsocket = \"\"\n", []string{":2: socket in [[nvme]]: is empty"}},
		{"socket of another device", disk + strings.Replace(disk, `"s"`, `"./s"`, 1), []string{":4: s is the place of the device of FILE:1 too"}},
		{"descriptor of another device", strings.Repeat("[[nvme]]\nfd=3\n[[nvme.namespace]]\nbackend = \"null:1M\"\n", 2),
			[]string{":5: descriptor 3 is the place of the device of FILE:1 too"}},
		{"number for text", "[[nvme]]\nsocket = 5\n", []string{":2: socket in [[nvme]]: must be text between quotes"}},
		{"text for a number", disk + "queues = \"8\"\n", []string{":4: queues in [[nvme]]: must be a whole number, without quotes"}},
		{"fraction", disk + "queues = 8.5\n", []string{":4: queues in [[nvme]]: must be a whole number, without quotes"}},
		{"text for true", disk + "incoming = \"yes\"\n", []string{":4: incoming in [[nvme]]: must be true or false, without quotes"}},
		{"number that overflows", disk + "queues = 99999999999999999999\n", []string{":4:10: "}},
		{"block size", "[[nvme]]\nnamespace = [{backend=\"null:1G\"},\n {backend=\"null:1G\",\n block-size=513}]", []string{":4: block-size in [[nvme.namespace]]: must be 512 or 4096"}},
		{"time without unit", disk + "idle-poll = \"5\"\n", []string{":4: idle-poll in [[nvme]]: must be a time such as"}},
		{"log level", "log-level = \"loud\"\n" + disk, []string{":1: log-level in the file: must be debug, info, warn or error"}},
		{"log format", "log-format = \"xml\"\n" + disk, []string{":1: log-format in the file: must be text or json"}},
		{"workers", "workers = 0\n" + disk, []string{":1: workers in the file: must be from 1 to 256"}},
		{"no link", "[[virtio-net]]\nsocket = \"s\"\n", []string{":1: no link: what should the card be connected to?"}},
		{"unknown link", "[[virtio-net]]\nsocket = \"s\"\nlink = \"pcap:f,cable\"\n",
			[]string{`:3: link in [[virtio-net]]: link: "cable": unknown kind of link "cable"; known are`}},
		{"options of another kind", nic + "serial = \"x\"\n", []string{`:4: "serial" is nothing that [[virtio-net]] can have; known are socket, fd, link, mac, queues,`}},
		{"too many queues", nic + "queues = 65\n", []string{":4: queues in [[virtio-net]]: virtio-net: invalid configuration: 65 queue pairs is not from 1 to 64"}},
		{"no queues", nic + "queues = 0\n", []string{":4: queues in [[virtio-net]]: must be a whole number from 1 on"}},
		{"MTU", nic + "mtu = 67\n", []string{":4: mtu in [[virtio-net]]: virtio-net: invalid configuration: an MTU of 67 bytes"}},
		{"queue size", nic + "queue-size = 100\n", []string{":4: queue-size in [[virtio-net]]: virtio-net: invalid configuration: queues of 100 entries"}},
		{"speed", nic + "speed = 4294967296\n", []string{":4: speed in [[virtio-net]]: must be"}},
		{"no address", nic + "mac = \"52:54\"\n", []string{":4: mac in [[virtio-net]]: must be an address such as 52:54:00:12:34:56"}},
		{"long address", nic + "mac = \"52:54:00:12:34:56:78:9a\"\n", []string{":4: mac in [[virtio-net]]: virtio-net: invalid configuration: an address of 8 bytes"}},
		{"address of a group", nic + "mac = \"01:00:5e:00:00:01\"\n", []string{":4: mac in [[virtio-net]]: virtio-net: invalid configuration: 01:00:5e:00:00:01 is the address of a group"}},
		{"doorbells of a drive", nic + "doorbells = \"shadow\"\n", []string{`:4: doorbells in [[virtio-net]]: virtio: unknown doorbell mode "shadow"`}},
		{"features in one text", nic + "features = \"mac\"\n", []string{":4: features in [[virtio-net]]: must be a list of text between quotes, in brackets"}},
		{"feature by number", nic + "features = [\"mac\",\n 5]\n", []string{":4: features in [[virtio-net]]: must be a list of text between quotes, in brackets"}},
		{"unknown feature", nic + "without-features = [\"standby\"]\n", []string{`:4: without-features in [[virtio-net]]: unknown feature "standby"; known are csum, guest_csum,`}},
		{"without version 1", nic + "without-features = [\"version_1\"]\n", []string{":4: without-features in [[virtio-net]]: every device offers version_1"}},
		{"drive and card in one place", disk + nic, []string{":4: s is the place of the device of FILE:1 too"}},
		{"descriptor that cannot be", "[[nvme]]\nfd = -1\n", []string{":2: fd in [[nvme]]: must be the number of an open descriptor"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := configOf(t, tt.content)
			_, err := readConfig(path, newProcess(), unsaid)
			var usage usageError
			if !errors.As(err, &usage) {
				t.Fatalf("got %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.says) {
				t.Fatalf("says %q, want %d lines", lines, len(tt.says))
			}
			for i, says := range tt.says {
				says = strings.ReplaceAll(says, "FILE", path)
				if !strings.HasPrefix(lines[i], path+":") || !strings.Contains(lines[i], says) {
					t.Errorf("says %q, want %q", lines[i], says)
				}
			}
		})
	}
}

// A file that is no configuration is refused soon, and takes little memory.
func TestHostileConfig(t *testing.T) {
	dir := t.TempDir()
	pipe, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	_, err = in.WriteString("log-level = \"loud\"\n")
	if err = errors.Join(err, in.Close()); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("k", 100_000)
	for _, tt := range []struct{ name, path, says string }{
		{"ten megabytes", configOf(t, strings.Repeat("# x\n", 10<<20/4)), "larger than 256 KiB"},
		{"without end", "/dev/zero", "larger than 256 KiB"},
		{"a program", os.Args[0], "larger than 256 KiB"},
		{"binary", configOf(t, "\x7fELF\x02\x01\x00"), "is not a text file"},
		{"not UTF-8", configOf(t, "\xff\xfe = 1"), ":1:1: "},
		{"arrays in arrays", configOf(t, "a = "+strings.Repeat("[", maxConfig-10)), "nested more than"},
		{"tables in tables", configOf(t, "a = "+strings.Repeat("{a=", maxConfig/4)), "nested more than"},
		{"tables in arrays", configOf(t, "a = "+strings.Repeat("[{a=", 4_900)+"1"+strings.Repeat("}]", 4_900)), `:1: "a" is nothing`},
		{"keys of keys", configOf(t, strings.Repeat("a.", maxConfig/2-10)+"a = 1"), `:1: "a" is nothing`},
		{"tables of tables", configOf(t, "["+strings.Repeat("a.", maxConfig/2-10)+"a]"), `:1: "a" is nothing`},
		{"many keys below a long one", configOf(t, "["+long+"]\n"+manyKeys(3_000)), `" is nothing`},
		{"many keys", configOf(t, manyKeys(5_000)), "and 4990 more mistakes"},
		{"many devices", configOf(t, strings.Repeat("[[nvme]]\n", maxConfig/9-10)), ":4097: 29117 devices; one process serves at most 4096"},
		{"terminal codes", configOf(t, "\"\\u001b[2J\" = 1"), `"\x1b[2J" is nothing`},
		{"includes", configOf(t, "include = \"/etc/passwd\"\n"), `"include" is nothing`},
		{"a pipe", fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()), "log-level in the file"},
		{"a folder", dir, "is a directory"},
		{"nothing", filepath.Join(dir, "none"), "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := readConfig(tt.path, newProcess(), unsaid)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 4096+len(tt.path) {
				t.Errorf("says %.2000v, want %q", err, tt.says)
			}
			if taken := (after.TotalAlloc - before.TotalAlloc) >> 20; taken > 128 {
				t.Errorf("takes %d MiB", taken)
			}
			if errors.Is(err, fs.ErrNotExist) != (tt.name == "nothing") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d = 1\n", i)
	}
	return b.String()
}

func TestCommandLineHoldsInPlaceOfTheFile(t *testing.T) {
	path := configOf(t, "log-level = \"debug\"\nworkers = 3\n[[nvme]]\nsocket = \"s\"\nnamespace = [{backend = \"null:1G\"}]\n")
	p := newProcess()
	if err := p.options()[0].set("error"); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(path, p, func(o string) bool { return o == "log-level" }); err != nil {
		t.Fatal(err)
	}
	if p.logLevel != slog.LevelError || p.workers != 3 {
		t.Errorf("got %+v", p)
	}
}

func TestServeConfig(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	path := configOf(t, fmt.Sprintf(`
write-multiple = true
[[nvme]]
socket = %q
[[nvme.namespace]]
backend = "mem:2M"
[[nvme.namespace]]
backend = "null:1G"
block-size = 4096
[[virtio-net]]
socket = %q
link = "switch:lan"
[[nvme]]
socket = %q
namespace = [{backend = "mem:1M"}]
`, a, c, b))
	out, err := command(t, "serve", "--config", path, "--check").Output()
	if err != nil || string(out) != path+": 2 nvme; 1 virtio-net\n" {
		t.Errorf("--check: %v, %q", err, out)
	}
	cmd := command(t, "serve", "--config", path)
	if ready, want := serve(t, cmd), fmt.Sprintf("ready: nvme on %s, %s; virtio-net on %s\n", a, b, c); ready != want {
		t.Errorf("says %q, want %q", ready, want)
	}
	second, err := command(t, "serve", "--config", path).CombinedOutput()
	if err == nil || !strings.Contains(string(second), path+":3: ") || !strings.Contains(string(second), "another server listens") {
		t.Errorf("a second server: %v, %s", err, second)
	}
	for socket, size := range map[string]int64{a: 2 << 20, b: 1 << 20} {
		ns, detach := disk(t, socket)
		if ns.Size() != size {
			t.Errorf("%s: %d bytes", socket, ns.Size())
		}
		detach()
	}
	if text, err := inspected(t, c); err != nil || !strings.Contains(text, "1, network card") {
		t.Errorf("%v\n%s", err, text)
	}
	terminate(t, cmd)
	for _, socket := range []string{a, b, c} {
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("%s is still there", socket)
		}
	}
}
