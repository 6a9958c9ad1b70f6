package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	driver "vfiouser/drivers/nvme"
)

// mainEnv makes the test binary be the command.
const mainEnv = "VFU_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	return cmd
}

// serve starts the command and waits for its ready line.
func serve(t testing.TB, cmd *exec.Cmd) (ready string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ready, err = bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(ready, "ready: ") {
		_ = cmd.Wait()
		t.Fatalf("not ready: %q %v\n%s", ready, err, &stderr)
	}
	return ready
}

// terminate sends SIGTERM and wants status 0.
func terminate(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// disk attaches to a socket and opens the controller's first namespace.
func disk(t *testing.T, socket string) (ns *driver.Namespace, detach func()) {
	t.Helper()
	ctx := context.Background()
	dev, err := client.Attach(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := client.NewMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	ctrl, err := driver.Open(ctx, dev, mem)
	if err != nil {
		t.Fatal(err)
	}
	return ctrl.Namespaces()[0], func() { ctrl.Close(); dev.Close(); mem.Close() }
}

func TestServeUntilSIGTERM(t *testing.T) {
	dir := t.TempDir()
	a, b, img := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "img")
	if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "serve", "nvme", "--socket", a, "--namespace", "mem:2M",
		"--socket", b, "--namespace", "file:"+img, "--block-size", "4096", "--queues", "2", "--doorbells", "mmap", "--idle-poll", "5ms", "--serial", "B1")
	if ready := serve(t, cmd); !strings.Contains(ready, a) || !strings.Contains(ready, b) {
		t.Errorf("ready line %q names not all sockets", ready)
	}
	first, detach := disk(t, a)
	if first.Size() != 2<<20 || first.BlockSize() != 512 {
		t.Errorf("first disk: %d bytes in blocks of %d", first.Size(), first.BlockSize())
	}
	detach()
	second, detach := disk(t, b)
	if second.Size() != 1<<20 || second.BlockSize() != 4096 {
		t.Errorf("second disk: %d bytes in blocks of %d", second.Size(), second.BlockSize())
	}
	if _, err := second.WriteAt([]byte("durable"), 5000); err != nil {
		t.Error(err)
	}
	terminate(t, cmd) // with a client attached
	detach()
	for _, path := range []string{a, b} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there", path)
		}
	}
	if data, _ := os.ReadFile(img); string(data[5000:5007]) != "durable" {
		t.Error("the file lacks what was written")
	}
}

func TestServeOnInheritedDescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "serve", "nvme", "--fd", "3", "--namespace", "null:1G")
	cmd.ExtraFiles = []*os.File{file}
	serve(t, cmd)
	file.Close()
	ns, detach := disk(t, path)
	if ns.Size() != 1<<30 {
		t.Errorf("%d bytes", ns.Size())
	}
	detach()
	terminate(t, cmd)
}

// A connection has one client; when that has gone there is nothing left to serve.
func TestServeOnInheritedConnection(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(pair[0]), "connection")
	cmd := command(t, "serve", "nvme", "--fd", "3", "--namespace", "null:1G")
	cmd.ExtraFiles = []*os.File{file}
	serve(t, cmd)
	file.Close()
	dev, err := client.AttachFD(t.Context(), pair[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestServeOffersGatheredWritesWhenAsked(t *testing.T) {
	for _, args := range [][]string{nil, {"--write-multiple"}} {
		path := filepath.Join(t.TempDir(), "s")
		cmd := command(t, append([]string{"serve", "nvme", "--socket", path, "--namespace", "null:1G"}, args...)...)
		serve(t, cmd)
		dev, err := client.Attach(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got := dev.Capabilities().WriteMultiple; got != (args != nil) {
			t.Errorf("%q: offered %v", args, got)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
		terminate(t, cmd)
	}
}

func TestServeTakesTheCommonNameOfSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cmd := command(t, "serve", "nvme", "--socket-path="+path, "--namespace", "null:1G")
	serve(t, cmd)
	_, detach := disk(t, path)
	detach()
	terminate(t, cmd)
}

func TestMistakesAreExplained(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live")
	l, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := filepath.Join(dir, "s")
	for _, c := range []struct {
		name   string
		args   string
		status int
		says   string
	}{
		{"nothing", "", 2, "demo"},
		{"unknown command", "sreve nvme", 2, "sreve"},
		{"no device", "serve", 2, "nvme"},
		{"no device and no file", "serve", 2, "--config"},
		{"unknown device", "serve floppy", 2, "floppy"},
		{"unknown device with a file", "serve floppy --config " + s, 2, "floppy"},
		{"missing configuration", "serve --config " + s, 1, "no such file"},
		{"empty name of a configuration", "serve --config=", 2, "is empty"},
		{"bad configuration", "serve --config /dev/null", 2, "/dev/null: describes no device"},
		{"check of nothing", "serve --check", 2, "--config"},
		{"configuration of one kind", "serve nvme --config " + s, 2, "--config"},
		{"control in a device's place", "serve nvme --socket " + s + " --namespace mem:1M --control " + s, 2, "the control socket is to be there too"},
		{"two devices in one place", "serve nvme --socket " + s + " --namespace mem:1M --socket " + s + " --namespace mem:1M", 2, "two devices"},
		{"too many workers", "serve nvme --workers 1000 --socket " + s + " --namespace mem:1M", 2, "from 1 to 256"},
		{"bad log format", "serve nvme --log-format xml --socket " + s + " --namespace mem:1M", 2, "text or json"},
		{"socket without path", "serve nvme --socket --namespace mem:1G", 2, "lack its value"},
		{"no socket", "serve nvme", 2, "no --socket"},
		{"no namespace", "serve nvme --socket " + s, 2, "no --namespace"},
		{"namespace before any socket", "serve nvme --namespace mem:1G --socket " + s, 2, "before the first --socket"},
		{"block size before any namespace", "serve nvme --socket " + s + " --block-size 512", 2, "before the controller's first --namespace"},
		{"bad size", "serve nvme --socket " + s + " --namespace mem:1X", 2, "mem:1X"},
		{"missing file", "serve nvme --socket " + s + " --namespace file:" + dir + "/none", 1, dir + "/none"},
		{"unknown backend", "serve nvme --socket " + s + " --namespace tape:1G", 2, "tape"},
		{"two serial numbers", "serve nvme --socket " + s + " --subsystem a --serial 1 --namespace mem:1M --socket " + s + "2 --subsystem a --serial 2", 2, "the serial of subsystem a is \"1\" already"},
		{"long serial number", "serve nvme --socket " + s + " --namespace mem:1M --serial 123456789012345678901", 2, "more than 20 characters"},
		{"bad pool", "serve nvme --socket " + s + " --pool tape:1G", 2, "unknown kind of pool"},
		{"bad format", "serve nvme --socket " + s + " --namespace mem:1M --metadata 8 --guard 64", 2, "no format has"},
		{"live control socket", "serve nvme --control " + live + " --socket " + s + " --namespace mem:1M", 1, "another server listens"},
		{"state directory that is a file", "serve nvme --socket " + s + " --namespace mem:1M --state-dir /dev/null", 1, "state directory"},
		{"live socket", "serve nvme --socket " + live + " --namespace mem:1M", 1, "another server listens"},
		{"missing folder", "serve nvme --socket " + dir + "/no/s --namespace mem:1M", 1, "does not exist"},
		{"too many queues", "serve nvme --socket " + s + " --namespace mem:1M --queues 129", 2, "from 1 to 128"},
		{"unknown doorbell mode", "serve nvme --socket " + s + " --namespace mem:1M --doorbells loud", 2, "loud"},
		{"bad pause", "serve nvme --socket " + s + " --namespace mem:1M --idle-poll soon", 2, "must be a time"},
		{"no link", "serve virtio-net --socket " + s, 2, "no --link"},
		{"unknown link", "serve virtio-net --socket " + s + " --link tin-can", 2, "tin-can"},
		{"option of a drive", "serve virtio-net --socket " + s + " --serial 1", 2, "--serial"},
		{"card option before any socket", "serve virtio-net --mtu 1500 --socket " + s, 2, "before the first --socket"},
		{"bad MTU", "serve virtio-net --socket " + s + " --mtu 5", 2, "MTU"},
		{"bad feature", "serve virtio-net --socket " + s + " --features mac,hdd", 2, "hdd"},
		{"live socket of a card", "serve virtio-net --socket " + live + " --link loop", 1, "another server listens"},
		{"descriptor that is not open", "serve nvme --fd 77 --namespace mem:1M", 1, "descriptor 77"},
		{"bad log level", "serve nvme --log-level loud --socket " + s + " --namespace mem:1M", 2, "loud"},
		{"unknown option", "serve nvme --sockets " + s, 2, "--sockets"},
		{"stray argument", "serve nvme " + s, 2, s},
		{"bad demo size", "demo --size 5", 2, "--size"},
		{"bad demo depth", "demo --depth 0", 2, "--depth"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := command(t, strings.Fields(c.args)...)
			cmd.Stderr = &stderr
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			if text := stderr.String(); !strings.HasPrefix(text, "vfu: ") || !strings.Contains(text, c.says) {
				t.Errorf("says %q, want %q", text, c.says)
			}
		})
	}
	if _, err := os.Lstat(s); !os.IsNotExist(err) {
		t.Error("a socket was left behind")
	}
}

func TestDemo(t *testing.T) {
	for _, args := range [][]string{
		{"demo", "--size", "4M"},
		{"demo", "--size", "12K", "--depth", "1"},
		{"demo", "--size", "1M", "--depth", "1024"},
	} {
		out, err := command(t, args...).Output()
		if err != nil || !strings.Contains(string(out), "Every byte was read back") ||
			!strings.Contains(string(out), "Every frame came back") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func TestOrderVisitsEverythingOnce(t *testing.T) {
	for _, total := range []uint64{1, 2, 3, 4, 7, 10, 256, 1000} {
		for _, second := range []bool{false, true} {
			o := newOrder(total, second)
			seen := make(map[uint64]bool)
			for i := range total {
				seen[o.at(i)] = true
			}
			if len(seen) != int(total) {
				t.Errorf("of %d transfers %d are visited", total, len(seen))
			}
		}
	}
}

func TestWrongDataIsFound(t *testing.T) {
	buf := make([]byte, transferSize)
	if err := fillBlock(buf, 7); err != nil || checkBlock(buf, 7) != nil {
		t.Error("right data is refused")
	}
	if checkBlock(buf, 8) == nil {
		t.Error("another transfer's data is accepted")
	}
	buf[transferSize-1]++
	if checkBlock(buf, 7) == nil {
		t.Error("a changed byte is accepted")
	}
	for length := range 20 {
		p := make([]byte, length)
		fillPattern(p, 1<<40+1)
		if at := wrongPattern(p, 1<<40+1); at != -1 {
			t.Errorf("%d bytes: wrong at %d", length, at)
		}
		for i := range p {
			p[i] ^= 0x80
			if at := wrongPattern(p, 1<<40+1); at != i&^7 {
				t.Errorf("%d bytes, of them %d wrong: found at %d", length, i, at)
			}
			p[i] ^= 0x80
		}
	}
}
