package bench

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if played, err := Play(); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // or every peer takes a second to end
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4)) // else each engine raises it
	os.Exit(m.Run())
}

// benchEnv is an Env for a benchmark that is no case. Devices are on core 0; where the thread is
// is the benchmark's.
func benchEnv(b *testing.B) *Env {
	b.Helper()
	env := &Env{Dir: b.TempDir(), DeviceCPUs: []int{0}, DriverCPU: -1, Log: slog.New(slog.DiscardHandler)}
	b.Cleanup(func() { env.Close() })
	return env
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
