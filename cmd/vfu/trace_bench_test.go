package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vfiouser/client"
)

// BenchmarkRoundTrip reads a register of a served controller directly, and with vfu trace
// in between, printing and recording; three processes, not pinned.
func BenchmarkRoundTrip(b *testing.B) {
	dir := b.TempDir()
	socket, through, recorded := filepath.Join(dir, "b"), filepath.Join(dir, "a"), filepath.Join(dir, "r")
	serve(b, command(b, "serve", "nvme", "--socket", socket, "--namespace", "null:1M"))
	traced(b, "--listen", through, "--connect", socket)
	traced(b, "--listen", recorded, "--connect", socket, "--quiet", "--write", filepath.Join(dir, "recording"))
	for _, c := range []struct{ name, socket string }{{"direct", socket}, {"printed", through}, {"recorded", recorded}} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.Background()
			dev, err := client.Attach(ctx, c.socket)
			for deadline := time.Now().Add(10 * time.Second); err != nil; dev, err = client.Attach(ctx, c.socket) {
				// The server may be busy with the end of the last session.
				if time.Now().After(deadline) {
					b.Fatal(err)
				}
			}
			defer dev.Close()
			latency := hdrhistogram.New(1, int64(time.Minute), 3)
			for b.Loop() {
				begin := time.Now()
				if _, err := dev.ReadRegion32(ctx, 0, 0x1c); err != nil {
					b.Fatal(err)
				}
				_ = latency.RecordValue(time.Since(begin).Nanoseconds())
			}
			b.ReportMetric(float64(latency.ValueAtPercentile(50)), "p50-ns")
			b.ReportMetric(float64(latency.ValueAtPercentile(99)), "p99-ns")
		})
	}
}
