package bench

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine"
)

// BenchmarkClients measures register reads of several clients at once, each on a device
// of its own, all devices on one reactor: round trips per second in all, and what the
// slowest client made of what the quickest did.
func BenchmarkClients(b *testing.B) {
	for _, n := range []int{1, 2, 8} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			fds := registers(b, n)
			access := codec.RegionAccess{Region: 0, Count: 4}
			request := access.AppendHead(codec.Header{Command: codec.CmdRegionRead, Size: 32}.Append(nil))
			made := make([]int, n)
			var left atomic.Int64
			var wait sync.WaitGroup
			left.Store(int64(b.N))
			b.ResetTimer()
			for i, fd := range fds {
				wait.Go(func() {
					for left.Add(-1) >= 0 {
						exchange(b, fd, request, 36)
						made[i]++
					}
				})
			}
			wait.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "trips/s")
			b.ReportMetric(float64(slices.Min(made))/float64(max(1, slices.Max(made))), "slowest/quickest")
		})
	}
}

// BenchmarkRegister measures what it takes to have a device that listens, and to be rid
// of it again.
func BenchmarkRegister(b *testing.B) {
	e, err := engine.New(engine.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	path := filepath.Join(b.TempDir(), "v")
	b.ReportAllocs()
	for b.Loop() {
		ep, err := e.Register(path, new(register))
		if err != nil {
			b.Fatal(err)
		}
		if err := ep.Start(); err != nil {
			b.Fatal(err)
		}
		if err := ep.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// registers starts n devices in this process and returns a connection to each.
func registers(b *testing.B, n int) []int {
	b.Helper()
	e, err := engine.New(engine.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	dir := b.TempDir()
	fds := make([]int, n)
	for i := range fds {
		path := filepath.Join(dir, fmt.Sprint(i))
		ep, err := e.Register(path, new(register))
		if err != nil {
			b.Fatal(err)
		}
		if err := ep.Start(); err != nil {
			b.Fatal(err)
		}
		if fds[i], err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(fds[i]) })
		if err := unix.Connect(fds[i], &unix.SockaddrUnix{Name: path}); err != nil {
			b.Fatal(err)
		}
		negotiate(b, fds[i])
	}
	return fds
}
