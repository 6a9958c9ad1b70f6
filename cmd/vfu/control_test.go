package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vfiouser/block"
	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
	driver "vfiouser/drivers/nvme"
)

// asked is a server with a control socket.
type asked struct {
	t      *testing.T
	dir    string
	socket string // for control
}

// serveAsked starts vfu serve nvme. NAME in args is a path in the server's folder.
func serveAsked(t *testing.T, args ...string) *asked {
	t.Helper()
	a := &asked{t: t, dir: t.TempDir()}
	a.socket = a.path("control")
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, "DIR", a.dir)
	}
	serve(t, command(t, append([]string{"serve", "nvme", "--control", a.socket}, args...)...))
	return a
}

func (a *asked) path(name string) string { return filepath.Join(a.dir, name) }

// run runs a command with --control and wants a status; it returns what that prints.
func (a *asked) run(status int, args ...string) string {
	a.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := command(a.t, append(args, "--control", a.socket)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		a.t.Fatalf("%q: status %d, want %d: %s", args, got, status, &stderr)
	}
	if status != 0 {
		if stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "vfu: ") {
			a.t.Errorf("%q: prints %q and %q", args, &stdout, &stderr)
		}
		return stderr.String()
	}
	return stdout.String()
}

func (a *asked) says(status int, want string, args ...string) {
	a.t.Helper()
	if got := a.run(status, args...); !strings.Contains(got, want) {
		a.t.Errorf("%q prints %q, want %q", args, got, want)
	}
}

// read runs a command with --json.
func (a *asked) read(v any, args ...string) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.run(0, append(args, "--json")...)), v); err != nil {
		a.t.Fatal(err)
	}
}

// open attaches to a controller, until the test ends.
func (a *asked) open(name string) *driver.Controller {
	a.t.Helper()
	ctrl, detach := a.attach(name)
	a.t.Cleanup(detach)
	return ctrl
}

func (a *asked) attach(name string) (ctrl *driver.Controller, detach func()) {
	t := a.t
	t.Helper()
	dev, err := client.Attach(t.Context(), a.path(name))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := client.NewMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	ctrl, err = driver.Open(t.Context(), dev, mem)
	if err != nil {
		t.Fatal(err)
	}
	return ctrl, func() { ctrl.Close(); dev.Close(); mem.Close() }
}

// active lists the namespaces as the controller does now.
func active(t *testing.T, ctrl *driver.Controller) []uint32 {
	t.Helper()
	data, err := ctrl.IdentifyData(t.Context(), spec.CNSActiveNamespaces, 0)
	if err != nil {
		t.Fatal(err)
	}
	return spec.NamespaceList(data)
}

func TestNamespacesChangeWhileAClientIsAttached(t *testing.T) {
	a := serveAsked(t, "--socket", "DIR/a", "--namespace", "mem:1M")
	if err := os.WriteFile(a.path("img"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctrl := a.open("a")
	var l driveList
	a.read(&l, "namespace", "add", "--block-size", "4096", "stats,file:"+a.path("img"))
	if n := l.Devices[0].Namespaces[0]; n.Namespace != 2 || n.Size != 1<<20 || n.BlockSize != 4096 || n.Kind != "file" ||
		n.Backend != "stats,file:"+a.path("img") || len(n.Controllers) != 1 || n.Filters[0].Kind != "stats" {
		t.Errorf("added: %+v", n)
	}
	a.says(0, "3  1MiB  blocks of 512", "namespace", "add", "mem:1M")
	if got := active(t, ctrl); len(got) != 3 {
		t.Errorf("active: %v", got)
	}
	a.says(0, "2  2MiB  blocks of 4096", "namespace", "resize", "2", "2M")
	if info, err := os.Stat(a.path("img")); err != nil || info.Size() != 2<<20 {
		t.Errorf("the file: %v, %v", info.Size(), err)
	}
	a.says(0, "blocks of 4096+8, protection 2 with a guard of 16 bits", "namespace", "add", "--block-size", "4096", "--metadata", "8", "--protection", "2", "mem:1M")
	a.run(0, "namespace", "remove", "4")
	a.run(0, "namespace", "remove", "3")
	a.says(0, "1  1MiB", "namespace", "list")
	if got := active(t, ctrl); len(got) != 2 {
		t.Errorf("active: %v", got)
	}
	for _, c := range []struct {
		status int
		says   string
		args   string
	}{
		{1, "no such namespace", "namespace remove 3"},
		{1, "no such namespace", "namespace resize 3 1M"},
		{2, "a size of 1024 bytes with blocks of 4096", "namespace resize 2 1024"},
		{2, "size \"big\"", "namespace resize 2 big"},
		{2, "a number from 1 on", "namespace remove 0"},
		{2, "a number from 1 on", "namespace remove one"},
		{2, "lacks NAMESPACE", "namespace remove"},
		{2, "lacks SIZE", "namespace resize 2"},
		{2, "unexpected argument \"3\"", "namespace remove 2 3"},
		{2, "unknown kind of backend", "namespace add tape:1G"},
		{2, "512 or 4096", "namespace add mem:1M --block-size 520"},
		{2, "no format has blocks of 512 bytes with 0 bytes of metadata", "namespace add mem:1M --protection 1"},
		{2, "a guard of 64 bits", "namespace add mem:1M --guard 64"},
		{1, "no such file", "namespace add file:" + a.path("none")},
		{1, "another process", "namespace add file:" + a.path("img")},
		{1, "no device is served on /none", "namespace list --device /none"},
		{2, "must be positive", "status --timeout 0s"},
	} {
		a.says(c.status, c.says, strings.Fields(c.args)...)
	}
}

func TestFiltersChangeWhileAClientIsAttached(t *testing.T) {
	a := serveAsked(t, "--socket", "DIR/a", "--namespace", "stats,error:off,delay:off,delay:off,volatile,mem:1M", "--namespace", "mem:1M")
	ns := a.open("a").Namespace(1)
	block := make([]byte, 512)
	if _, err := ns.WriteAt(block, 0); err != nil {
		t.Fatal(err)
	}
	a.says(0, "1  error     write:enospc", "filter", "set", "1", "error", "write:enospc")
	if _, err := ns.WriteAt(block, 0); !errors.Is(err, spec.CapacityExceeded) {
		t.Errorf("a write behind error:write:enospc: %v", err)
	}
	if _, err := ns.ReadAt(block, 0); err != nil {
		t.Error(err)
	}
	a.run(0, "filter", "set", "1", "error", "off")
	if _, err := ns.WriteAt(block, 0); err != nil {
		t.Error(err)
	}
	var l driveList
	a.read(&l, "filter", "list", "--namespace", "1")
	f := l.Devices[0].Namespaces[0].Filters
	if len(f) != 5 || f[1].Hits != 1 || f[1].Settings != "off" || f[4].Kind != "volatile" || !f[4].Cache.Power || f[4].Cache.Unflushed != 4096 {
		t.Fatalf("filters %+v", f)
	}
	for _, s := range f[0].Stats {
		if s.Operation == "write" && (s.Requests != 3 || s.Errors != 1 || s.Bytes != 1024) {
			t.Errorf("stats %+v", s)
		}
	}
	a.says(0, "1KiB, 1 error, 0 in flight", "filter", "list")
	a.says(0, "3  delay     1ms", "filter", "set", "1", "3", "1ms")
	for _, c := range []struct {
		status int
		says   string
		args   string
	}{
		{2, "2 filters are a delay", "filter set 1 delay 2ms"},
		{2, "no time", "filter set 1 2 write"},
		{1, "there is no filter 5; the namespace has 5", "filter set 1 5 off"},
		{1, "no filter \"rate\"", "filter set 1 rate off"},
		{1, "power-cut and power-on are for it", "filter set 1 volatile off"},
		{1, "power-cut and power-on are for it", "filter set 1 4 off"},
		{1, "no such namespace", "filter set 3 error off"},
		{1, "there is no namespace 3", "filter list --namespace 3"},
		{2, "lacks SETTINGS", "filter set 1 error"},
		{1, "nothing that is meant has the filter volatile", "power cut --namespace 2"},
		{2, "unexpected argument", "power cut now"},
	} {
		a.says(c.status, c.says, strings.Fields(c.args)...)
	}
}

func TestPowerCut(t *testing.T) {
	a := serveAsked(t, "--socket", "DIR/a", "--namespace", "volatile,mem:1M", "--namespace", "mem:1M")
	ctrl := a.open("a")
	ns, other := ctrl.Namespace(1), ctrl.Namespace(2)
	write := func(text string) error { _, err := ns.WriteAt([]byte(text), 0); return err }
	read := func() string {
		b := make([]byte, 7)
		if _, err := ns.ReadAt(b, 0); err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if err := errors.Join(write("durable"), ns.Flush(t.Context()), write("but not")); err != nil {
		t.Fatal(err)
	}
	a.says(0, "1 cache without power, 4KiB forgotten", "power", "cut")
	if err := write("nothing"); err == nil {
		t.Error("a write without power succeeds")
	}
	if err := ns.Flush(t.Context()); err == nil {
		t.Error("a flush without power succeeds")
	}
	if _, err := other.WriteAt(make([]byte, 512), 0); err != nil {
		t.Errorf("a namespace that has no such filter: %v", err)
	}
	a.says(0, "without power, 0B not flushed, 1 power cut", "filter", "list")
	a.says(0, "volatile,mem:1M  without power\n", "status")
	a.says(0, "1 cache with power", "power", "on")
	if got := read(); got != "durable" {
		t.Errorf("after the power cut: %q", got)
	}
	if err := errors.Join(write("again"), ns.Flush(t.Context())); err != nil {
		t.Error(err)
	}
}

// Two controllers in front of the same namespaces, and one of its own.
func TestSharedSubsystem(t *testing.T) {
	a := serveAsked(t, "--socket", "DIR/a", "--namespace", "mem:1M", "--subsystem", "s", "--serial", "S1",
		"--socket", "DIR/b", "--subsystem", "s", "--namespace", "mem:2M",
		"--socket", "DIR/c", "--namespace", "mem:3M", "--pool", "mem:1G")
	first, second := a.open("a"), a.open("b")
	if x, y := first.Identify(), second.Identify(); x.ControllerID == y.ControllerID || x.SubNQN != y.SubNQN {
		t.Errorf("controllers %d and %d, of %q and %q", x.ControllerID, y.ControllerID, x.SubNQN, y.SubNQN)
	}
	if _, err := first.Namespace(2).WriteAt([]byte("shared"), 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := second.Namespace(2).ReadAt(got, 0); err != nil || string(got) != "shared" {
		t.Errorf("the other controller reads %q, %v", got, err)
	}
	a.says(2, "2 drives are served: say which device is meant", "namespace", "add", "mem:4M")
	a.says(0, "3  4MiB  blocks of 512  mem:4M  controllers 1 2", "namespace", "add", "mem:4M", "--device", a.path("b"))
	for _, ctrl := range []*driver.Controller{first, second} {
		if got := active(t, ctrl); len(got) != 3 {
			t.Errorf("active: %v", got)
		}
	}
	var r statusReport
	a.read(&r, "status")
	if len(r.Devices) != 3 || !r.Devices[0].Client || r.Devices[2].Client || r.Devices[0].Subsystem != "s" ||
		len(r.Devices[1].Namespaces) != 3 || len(r.Devices[2].Namespaces) != 1 || r.Devices[2].Device != a.path("c") || r.Devices[2].Kind != "nvme" {
		t.Errorf("%+v", r)
	}
	a.says(0, a.path("c")+": nvme, no client", "status")
}

// The socket of a device is taken for that of control easily.
func TestSocketOfADeviceIsNotAsked(t *testing.T) {
	a := serveAsked(t, "--socket", "DIR/a", "--namespace", "mem:1M")
	a.socket = a.path("a")
	a.says(exitFailure, "this is the socket of a device", "status")
	a.open("a")
	a.says(exitFailure, "this is the socket of a device", "status")
}

func TestCommandsWithoutAServer(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"status"}, exitUsage, "no --control"},
		{[]string{"namespace"}, exitUsage, "add, list, remove, resize"},
		{[]string{"filter", "unset"}, exitUsage, "unknown command \"unset\""},
		{[]string{"power"}, exitUsage, "cut, on"},
		{[]string{"status", "--control", filepath.Join(dir, "none")}, exitFailure, "there is no such socket"},
		{[]string{"status", "--control", file}, exitFailure, "is no socket"},
		{[]string{"status", "--control", "/tmp/" + strings.Repeat("a", 200)}, exitFailure, "which no socket's path can be"},
	} {
		out, err := command(t, c.args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("%q: %v: %s", c.args, err, out)
		}
	}
}

// The control socket ends with the process and does not keep it.
func TestControlSocketEndsWithTheProcess(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control")
	cmd := command(t, "serve", "virtio-net", "--control", path, "--socket", filepath.Join(dir, "net"), "--link", "loop")
	serve(t, cmd)
	a := &asked{t: t, dir: dir, socket: path}
	a.says(0, a.path("net")+": virtio-net, no client, link loop", "status")
	a.says(1, "no device of this process has namespaces", "namespace", "list")
	a.says(1, "has no namespaces", "namespace", "list", "--device", a.path("net"))
	terminate(t, cmd)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the socket is still there")
	}
}

// A namespace that a host has created in the pool is there again, with its data, after the process
// was killed; what was resized or removed from outside too.
func TestNamespacesOfHostsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	a := &asked{t: t, dir: dir, socket: filepath.Join(dir, "control")}
	if err := os.Mkdir(a.path("pool"), 0o700); err != nil {
		t.Fatal(err)
	}
	begin := func() *exec.Cmd {
		cmd := command(t, "serve", "nvme", "--control", a.socket, "--socket", a.path("a"), "--serial", "S1",
			"--pool", "dir:"+a.path("pool")+":64M", "--state-dir", a.path("state"), "--namespace", "mem:1M")
		serve(t, cmd)
		return cmd
	}
	cmd := begin()
	ctrl, detach := a.attach("a")
	for range 2 {
		id, err := ctrl.CreateNamespace(t.Context(), 2<<20/512, 0, nil)
		if err == nil {
			err = ctrl.AttachNamespace(t.Context(), id, ctrl.Identify().ControllerID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	detach() // the driver lists namespaces when it begins
	ctrl = a.open("a")
	if _, err := ctrl.Namespace(3).WriteAt([]byte("lasting"), 0); err != nil {
		t.Fatal(err)
	}
	a.run(0, "namespace", "resize", "3", "4M")
	a.run(0, "namespace", "remove", "2")
	if err := ctrl.Namespace(3).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	volumes, err := filepath.Glob(a.path("pool/*.volume"))
	if err != nil || len(volumes) != 1 {
		t.Fatalf("volumes %q, %v", volumes, err)
	}
	released(t, volumes[0])
	cmd = begin()
	ctrl = a.open("a")
	if got := active(t, ctrl); len(got) != 2 || got[1] != 3 || ctrl.Namespace(3).Size() != 4<<20 {
		t.Fatalf("active: %v", got)
	}
	got := make([]byte, 7)
	if _, err := ctrl.Namespace(3).ReadAt(got, 0); err != nil || string(got) != "lasting" {
		t.Errorf("read %q, %v", got, err)
	}
	a.says(0, "file of the pool", "namespace", "list")
	terminate(t, cmd)
}

func TestSettingsOfACacheAreReadAsTheyWereGiven(t *testing.T) {
	for _, settings := range []string{"keep=7%:size=1M", "keep=0.1%:size=3M", "keep=57%:size=64M", "keep=100%:size=1G"} {
		b, err := block.Open("volatile:" + settings + ",mem:1M")
		if err != nil {
			t.Fatal(err)
		}
		if got := filterReports(b)[0].Settings; got != settings {
			t.Errorf("%s is reported as %s", settings, got)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
