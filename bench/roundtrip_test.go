package bench

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// roundTripRun is the number of round trips between two looks at the other server.
const roundTripRun = 200

// BenchmarkRoundTrip measures a 4-byte REGION_READ through a unix socket beside a C
// program that answers the same bytes through epoll. Client and server share one
// core: a core that went idle takes longer to wake than all of this. The two servers
// alternate, and ratio is that of the medians.
func BenchmarkRoundTrip(b *testing.B) {
	pin(b, 0)
	echo, engine := startEcho(b), startEngine(b)
	negotiate(b, engine)

	request := codec.Header{Command: codec.CmdRegionRead, Size: 32}.Append(nil)
	access := codec.RegionAccess{Region: 0, Count: 4}
	request = access.AppendHead(request)
	var times [2][]time.Duration
	b.ResetTimer()
	for n := 0; n < b.N; n += roundTripRun {
		for i, fd := range []int{echo, engine} {
			for range roundTripRun {
				times[i] = append(times[i], exchange(b, fd, request, 36))
			}
		}
	}
	b.StopTimer()
	limit, ours := quantiles(times[0]), quantiles(times[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours[0], "p50-ns")
	b.ReportMetric(ours[1], "p99-ns")
	b.ReportMetric(limit[0], "echo-p50-ns")
	b.ReportMetric(limit[1], "echo-p99-ns")
	b.ReportMetric(ours[0]/limit[0], "ratio")
}

func negotiate(tb testing.TB, fd int) {
	tb.Helper()
	request := make([]byte, codec.HeaderSize)
	request = (&codec.VersionMsg{Minor: 1}).Append(request)
	codec.Header{Command: codec.CmdVersion, Size: uint32(len(request))}.Put(request)
	if _, err := unix.Write(fd, request); err != nil {
		tb.Fatal(err)
	}
	reply := make([]byte, 4096)
	n, err := unix.Read(fd, reply)
	if err != nil {
		tb.Fatal(err)
	}
	if h, err := codec.DecodeHeader(reply[:n]); err != nil || h.Err() != nil {
		tb.Fatal(h, err)
	}
}

// exchange sends a request and waits for a reply of the given size.
func exchange(tb testing.TB, fd int, request []byte, size int) time.Duration {
	var reply [64]byte
	begin := time.Now()
	if _, err := unix.Write(fd, request); err != nil {
		tb.Fatal(err)
	}
	n, err := unix.Read(fd, reply[:])
	if n != size || err != nil {
		tb.Fatalf("reply of %d bytes, %v", n, err)
	}
	return time.Since(begin)
}

// quantiles are the median and the 99th percentile in nanoseconds.
func quantiles(d []time.Duration) [2]float64 {
	slices.Sort(d)
	return [2]float64{float64(d[len(d)/2]), float64(d[len(d)*99/100])}
}
