package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vfiouser/test/holdings"
	"vfiouser/test/transcript"
)

const (
	startTimeout = 10 * time.Second
	stopTimeout  = 10 * time.Second
)

// served is one device on vfu's command line.
type served struct {
	namespaces []string // "mem:64M"
	options    []string // "--doorbells", "trap"
}

// server is a vfu process, looked at from outside.
type server struct {
	sockets []string
	pid     int
	kill    func() // by SIGKILL; then nothing is asked of the server at the end of the test
}

// serve starts `vfu serve nvme` with the devices; see startServer.
func serve(t *testing.T, devices ...served) *server {
	t.Helper()
	sockets := newSockets(t, len(devices))
	args := []string{"serve", "nvme"}
	for i, device := range devices {
		args = append(args, "--socket", sockets[i])
		for _, namespace := range device.namespaces {
			args = append(args, "--namespace", namespace)
		}
		args = append(args, device.options...)
	}
	return startServer(t, (*exec.Cmd).Start, sockets, args)
}

// newSockets returns paths for the sockets of n devices.
func newSockets(t *testing.T, n int) []string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	sockets := make([]string, n)
	for i := range sockets {
		sockets[i] = filepath.Join(dir, fmt.Sprintf("%d.sock", i))
	}
	return sockets
}

// startServer starts the vfu command, by the function start, and waits until it says that it
// is ready. At the end of the test it must still run, end with status 0 on SIGTERM, and leave
// no socket behind. When the test fails its log is shown.
func startServer(t *testing.T, start func(*exec.Cmd) error, sockets, args []string) *server {
	t.Helper()
	s := &server{sockets: sockets}
	cmd := exec.Command(buildCommand(t), args...)
	var log transcript.Buffer
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	ready := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			select {
			case ready <- lines.Text():
			default: // (only the first line is waited for)
			}
		}
		ended <- cmd.Wait()
	}()
	killed := false
	s.kill = func() {
		killed = true
		_ = cmd.Process.Kill() // fails only if it has ended already
		<-ended
	}
	t.Cleanup(func() {
		if !killed {
			if err := stop(cmd.Process, ended); err != nil {
				t.Errorf("server: %v", err)
			}
			for _, socket := range s.sockets {
				if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the server left its socket behind: %v", err)
				}
			}
		}
		if t.Failed() {
			t.Logf("server log:\n%s", log.String())
		}
	})
	select {
	case line := <-ready:
		t.Logf("server: %s", line)
	case err := <-ended:
		ended <- err
		t.Fatalf("the server did not start: %v", err)
	case <-time.After(startTimeout):
		t.Fatalf("the server is not ready after %v", startTimeout)
	}
	return s
}

// stop ends a server that should still run.
func stop(process *os.Process, ended chan error) error {
	select {
	case err := <-ended:
		return fmt.Errorf("ended by itself: %v", err)
	default:
	}
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("SIGTERM: %w", err)
		}
		return nil
	case <-time.After(stopTimeout):
		process.Signal(syscall.SIGQUIT) // (the Go runtime prints all stacks)
		<-ended
		return fmt.Errorf("SIGTERM: still there after %v", stopTimeout)
	}
}

// holdings counts what the server holds.
func (s *server) holdings(t *testing.T) holdings.Holdings {
	t.Helper()
	return holdings.Of(t, s.pid)
}

// checkReleased waits until the server holds what it held before, and no more.
func (s *server) checkReleased(t *testing.T, before holdings.Holdings) {
	t.Helper()
	holdings.CheckReleased(t, s.pid, before)
}

// cpuTime is the processor time that the server has used so far, in units of 10 ms.
func (s *server) cpuTime(t *testing.T) time.Duration {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	// (the second field is the name in parentheses; utime and stime are fields 14 and 15)
	_, after, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(after)
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// blocks is the number of bytes that a file takes on the host's disk.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// image makes an empty sparse file for a namespace.
func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}
