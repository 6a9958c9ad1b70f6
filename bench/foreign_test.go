package bench

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
)

// foreignEnv names the socket of a server that is not this module's, for example of
// libvfio-user's sample gpio-pci-idio-16.
const foreignEnv = "VFIOUSER_BENCH_FOREIGN"

// roundTripRun is the number of round trips between two looks at the other server.
const roundTripRun = 200

// BenchmarkForeign measures a 4-byte REGION_READ from this module's server and from
// the foreign one in turns of roundTripRun, with the same client and all three on one
// core. "raw" is write and read on the socket, "client" is this module's client.
//
// ratio is ours over theirs, of the medians (p50-ratio) and of the 99th percentiles
// (p99-ratio); best is the least median of a turn, which other load on the machine
// disturbs least.
func BenchmarkForeign(b *testing.B) {
	socket := os.Getenv(foreignEnv)
	if socket == "" {
		b.Skipf("%s does not name the socket of a foreign server", foreignEnv)
	}
	b.Run("raw", func(b *testing.B) {
		pin(b, 0)
		fd, err := spawn(benchEnv(b), "device")
		if err != nil {
			b.Fatal(err)
		}
		ours, theirs := rawReads(b, fd, 0), foreignRaw(b, socket)
		alternate(b, ours, theirs)
	})
	b.Run("client", func(b *testing.B) {
		pin(b, 0)
		env := benchEnv(b)
		if _, err := spawnListening(env, "devices", 1); err != nil {
			b.Fatal(err)
		}
		ours, theirs := clientReads(b, devicePath(env, 0)), clientReads(b, socket)
		alternate(b, ours, theirs)
	})
}

// alternate takes turns between two ways to read a register until each has been
// measured b.N times.
func alternate(b *testing.B, ours, theirs func() time.Duration) {
	var times [2][]time.Duration
	for i := range times { // (neither growing nor page faults while it is measured)
		times[i] = slices.Repeat([]time.Duration{1}, b.N+roundTripRun)[:0]
	}
	best := [2]float64{math.Inf(1), math.Inf(1)}
	b.ResetTimer()
	for n := 0; n < b.N; n += roundTripRun {
		for i, read := range []func() time.Duration{ours, theirs} {
			runtime.Gosched() // else the scheduler's monitor disturbs us, see reactor/idle.go
			begin := len(times[i])
			for range roundTripRun {
				times[i] = append(times[i], read())
			}
			best[i] = min(best[i], quantiles(slices.Clone(times[i][begin:]))[0])
		}
	}
	b.StopTimer()
	our, their := quantiles(times[0]), quantiles(times[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(our[0], "p50-ns")
	b.ReportMetric(our[1], "p99-ns")
	b.ReportMetric(best[0], "best-ns")
	b.ReportMetric(their[0], "foreign-p50-ns")
	b.ReportMetric(their[1], "foreign-p99-ns")
	b.ReportMetric(best[1], "foreign-best-ns")
	b.ReportMetric(our[0]/their[0], "p50-ratio")
	b.ReportMetric(our[1]/their[1], "p99-ratio")
	b.ReportMetric(best[0]/best[1], "best-ratio")
}

// rawReads negotiates on a connected socket and reads a register of a BAR.
func rawReads(b *testing.B, fd, bar int) func() time.Duration {
	if err := negotiate(fd); err != nil {
		b.Fatal(err)
	}
	request := codec.Header{Command: codec.CmdRegionRead, Size: 32}.Append(nil)
	access := codec.RegionAccess{Region: uint32(bar), Count: 4}
	request = access.AppendHead(request)
	reply := make([]byte, oneRead.echo().reply)
	return func() time.Duration {
		begin := time.Now()
		if err := exchange(fd, request, reply); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
}

func foreignRaw(b *testing.B, socket string) func() time.Duration {
	b.Helper()
	dev, err := client.Attach(context.Background(), socket)
	if err != nil {
		b.Fatal(err)
	}
	bar := firstBAR(b, dev)
	dev.Close()
	fd := connectNear(b, socket)
	b.Cleanup(func() { unix.Close(fd) })
	return rawReads(b, fd, bar)
}

// connectNear connects to a server and brings that to this core.
func connectNear(b *testing.B, socket string) int {
	b.Helper()
	fd, err := connect(socket)
	if err != nil {
		b.Fatal(err)
	}
	pinPeer(b, fd)
	return fd
}

// quantiles are the median and the 99th percentile in nanoseconds.
func quantiles(d []time.Duration) [2]float64 {
	slices.Sort(d)
	return [2]float64{float64(d[len(d)/2]), float64(d[len(d)*99/100])}
}

// clientReads reads a register through the client package.
func clientReads(b *testing.B, socket string) func() time.Duration {
	b.Helper()
	ctx := context.Background()
	dev, err := client.AttachFD(ctx, connectNear(b, socket))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dev.Close() })
	bar := firstBAR(b, dev)
	return func() time.Duration {
		begin := time.Now()
		if _, err := dev.ReadRegion32(ctx, bar, 0); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
}

// firstBAR is the lowest BAR of a device that can be read.
func firstBAR(b *testing.B, dev *client.Device) int {
	b.Helper()
	for i := range 6 {
		r, err := dev.Region(context.Background(), i)
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
		if r.Size >= 4 && r.Readable() {
			return i
		}
	}
	b.Fatal("the device has no BAR that can be read")
	return -1
}

// pinPeer pins all threads of the process at the other end of a socket to this
// thread's cores, until the end of the benchmark.
func pinPeer(b *testing.B, fd int) {
	b.Helper()
	var here unix.CPUSet
	if err := unix.SchedGetaffinity(0, &here); err != nil {
		b.Fatal(err)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		b.Fatal(err)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", peer.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			b.Fatal(err)
		}
		var old unix.CPUSet
		if err := unix.SchedGetaffinity(id, &old); err != nil {
			continue // (it has just ended)
		}
		if err := unix.SchedSetaffinity(id, &here); err != nil {
			b.Skipf("cannot pin the server: %v", err)
		}
		b.Cleanup(func() { _ = unix.SchedSetaffinity(id, &old) })
	}
}
