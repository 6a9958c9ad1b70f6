package block

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startServer runs an NBD server until the test ends, and waits for its socket.
func startServer(t *testing.T, socket, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s; Debian has it in the packages nbdkit and qemu-utils", name)
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(out.Name())
			t.Logf("%s: %s", name, log)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			_, _ = io.ReadFull(c, make([]byte, 18)) // its hello: it serves
			_ = c.Close()
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen", name)
		}
	}
}

// realServers runs a test with each real server that there is, in several forms.
func realServers(t *testing.T, size int64, test func(t *testing.T, uri string)) {
	for _, tt := range []struct {
		name, as string
		args     func(socket, disk string) []string
	}{
		{"nbdkit", "file", func(socket, disk string) []string { return []string{"-f", "-U", socket, "file", disk} }},
		{"nbdkit", "simple replies, no zeroes", func(socket, disk string) []string {
			return []string{"-f", "--no-sr", "-U", socket, "--filter=nozero", "file", disk}
		}},
		{"nbdkit", "memory", func(socket, disk string) []string { return []string{"-f", "-n", "-U", socket, "memory", "4M"} }},
		{"nbdkit", "small blocks", func(socket, disk string) []string {
			return []string{"-f", "-U", socket, "--filter=blocksize-policy", "file", disk, "blocksize-minimum=512", "blocksize-maximum=8192", "blocksize-error-policy=error"}
		}},
		{"qemu-nbd", "several connections", func(socket, disk string) []string {
			return []string{"-t", "-k", socket, "-x", "disk", "-f", "raw", "-e", "8", "--discard=unmap", disk}
		}},
		{"qemu-nbd", "one connection", func(socket, disk string) []string {
			return []string{"-t", "-k", socket, "-x", "disk", "-f", "raw", "-e", "1", "--cache=writeback", disk}
		}},
	} {
		t.Run(tt.name+", "+tt.as, func(t *testing.T) {
			dir := t.TempDir()
			socket, disk := filepath.Join(dir, "sock"), filepath.Join(dir, "disk")
			must(t, os.WriteFile(disk, nil, 0o600))
			must(t, os.Truncate(disk, size))
			startServer(t, socket, tt.name, tt.args(socket, disk)...)
			test(t, "nbd+unix:///disk?socket="+socket)
		})
	}
}

func TestNBDWithRealServers(t *testing.T) {
	const size = 4 << 20
	realServers(t, size, func(t *testing.T, uri string) {
		b, err := Open(uri)
		n := closing(t, b, err).(*nbd)
		t.Logf("%+v, %d connections, %+v", b.Info(), len(n.conns), n.export)
		if b.Size() != size {
			t.Errorf("size %d", b.Size())
		}
		var wait sync.WaitGroup
		for i := range int64(4) {
			wait.Go(func() {
				m := model{b: b, base: i * size / 4, want: make([]byte, size/4), rng: rand.New(rand.NewPCG(uint64(i), 4))}
				if err := m.run(100); err != nil {
					t.Errorf("submitter %d: %v", i, err)
				}
			})
		}
		wait.Wait()
		must(t, do(b, &Request{Op: Flush}))
	})
}

// A server that is killed and started again while there are requests.
func TestNBDServerIsKilled(t *testing.T) {
	dir := t.TempDir()
	socket, disk := filepath.Join(dir, "sock"), filepath.Join(dir, "disk")
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 4<<20))
	args := []string{"-f", "-U", socket, "file", disk}
	server := startServer(t, socket, "nbdkit", args...)
	b, err := Open("nbd+unix:///?socket=" + socket)
	closing(t, b, err)
	var wait sync.WaitGroup
	done := make(chan struct{})
	for i := range int64(4) {
		wait.Go(func() {
			m := model{b: b, base: i << 20, want: make([]byte, 1<<20), rng: rand.New(rand.NewPCG(uint64(i), 5))}
			for more := true; more; {
				if err := m.step(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					more = false
				default:
				}
			}
			if err := m.check(); err != nil {
				t.Error(err)
			}
		})
	}
	for range 5 {
		_ = server.Process.Kill()
		_ = server.Wait()
		must(t, os.Remove(socket))
		server = startServer(t, socket, "nbdkit", args...)
	}
	close(done)
	wait.Wait()
}

func TestNBDReadOnlyExport(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sock")
	startServer(t, socket, "nbdkit", "-f", "-r", "-U", socket, "pattern", "1M")
	b, err := Open("nbd+unix:///?socket=" + socket)
	closing(t, b, err)
	got := make([]byte, 16)
	must(t, read(b, 4096, got))
	if want := []byte{0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 16, 8}; !bytes.Equal(got, want) {
		t.Errorf("read %x, want %x", got, want)
	}
	if err := write(b, 0, got); err != ErrReadOnly {
		t.Errorf("write: %v", err)
	}
}
