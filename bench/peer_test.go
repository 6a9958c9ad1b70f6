package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
	"vfiouser/pci"
)

// roleEnv makes the test binary play a server instead of running tests, so that
// the server is a process of its own, pinned to a core.
const roleEnv = "VFIOUSER_BENCH_SERVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(roleEnv); path != "" {
		if err := serveRegister(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4)) // else each engine raises it
	os.Exit(m.Run())
}

// register is the smallest device: one 4-byte register in BAR0.
type register struct {
	engine.BaseDevice
	value [4]byte
}

func (d *register) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x11e8, Class: 0xff0000,
		BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}},
	})
	desc := engine.Description{Config: config}
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size:  4096,
		Read:  func(_ uint64, p []byte) error { copy(p, d.value[:]); return nil },
		Write: func(_ uint64, p []byte) error { copy(d.value[:], p); return nil },
	}
	return desc, err
}

func serveRegister(path string) error {
	e, err := engine.New(engine.Config{})
	if err != nil {
		return err
	}
	ep, err := e.Register(path, new(register))
	if err != nil {
		return err
	}
	if err := ep.Start(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent closes it
	return e.Close()
}

// pin keeps the calling goroutine, and processes that it starts, on one core.
func pin(tb testing.TB, cpu int) {
	tb.Helper()
	runtime.LockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		tb.Skipf("no affinity: %v", err)
	}
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		tb.Skipf("cannot pin to core %d: %v", cpu, err)
	}
	tb.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &old)
		runtime.UnlockOSThread()
	})
}

// start runs a server process and returns a socket connected to it.
func start(tb testing.TB, socket string, env []string, name string, args ...string) int {
	tb.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { in.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "ready" {
		tb.Fatalf("%s is not ready: %q %v", name, line, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		tb.Fatal(err)
	}
	return fd
}

// startEcho compiles and runs the C program that is the limit of a round trip.
func startEcho(tb testing.TB) int {
	cc, err := exec.LookPath("cc")
	if err != nil {
		tb.Skip("no C compiler")
	}
	dir := tb.TempDir()
	bin, socket := filepath.Join(dir, "echo"), filepath.Join(dir, "e")
	if out, err := exec.Command(cc, "-O2", "-o", bin, "testdata/echo.c").CombinedOutput(); err != nil {
		tb.Fatalf("cc: %v\n%s", err, out)
	}
	return start(tb, socket, nil, bin, socket)
}

// startEngine runs the engine with the register device.
func startEngine(tb testing.TB) int {
	socket := filepath.Join(tb.TempDir(), "v")
	return start(tb, socket, []string{roleEnv + "=" + socket}, os.Args[0])
}
