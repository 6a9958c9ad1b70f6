package migrate

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vfiouser/client"
)

// vfu builds the command.
func vfu(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "vfu")
	if out, err := exec.Command("go", "build", "-o", path, "vfiouser/cmd/vfu").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// process starts a server in a process of its own and attaches to it.
func process(t *testing.T, vfu, file string, args ...string) *client.Device {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nvme.sock")
	cmd := exec.Command(vfu, append([]string{"serve", "nvme", "--socket", socket,
		"--namespace", "file:" + file, "--block-size", "4096"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	if ready, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(ready, "ready: ") {
		t.Fatalf("not ready: %q %v", ready, err)
	}
	dev := attach(t, socket)
	t.Cleanup(func() {
		_ = dev.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

// TestDriveMovesToAnotherProcess: the file behind the drive is the same, and each process
// has it in turn.
func TestDriveMovesToAnotherProcess(t *testing.T) {
	bin, file, ram := vfu(t), newDisk(t), newRAM(t)
	dev := process(t, bin, file)
	if err := dev.MapDMA(t.Context(), ram.At(base)); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, dev, ram.Bytes(), true)
	h.work(500)
	for range 3 {
		next := process(t, bin, file, "--incoming")
		h.moves(dev, next, ram.Bytes())
		dev = next
	}
}
