package nvme

import (
	"context"
	"fmt"
	"testing"

	"vfiouser/block"
	device "vfiouser/devices/nvme"
)

func benchRandomRead(b *testing.B, backend string, mode device.DoorbellMode, depth int) {
	be, err := block.Open(backend)
	if err != nil {
		b.Fatal(err)
	}
	d := newDisk(b, device.Config{Doorbells: mode, Namespaces: []device.Namespace{{Backend: be}}})
	c := d.open(b)
	q, err := c.NewQueue(context.Background(), QueueConfig{Depth: depth})
	if err != nil {
		b.Fatal(err)
	}
	n := c.Namespace(1)
	blocks := n.Blocks() / 8
	done := make([]Completion, depth)
	seed := uint64(1)
	next := func() uint64 {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		return seed % blocks * 8
	}
	b.ReportAllocs()
	b.ResetTimer()
	submitted := 0
	for tag := range min(depth, b.N) {
		if err := q.Read(uint16(tag), n, next(), 8); err != nil {
			b.Fatal(err)
		}
		submitted++
	}
	if err := q.Ring(); err != nil {
		b.Fatal(err)
	}
	for finished := 0; finished < b.N; {
		k, err := q.Poll(done)
		if err != nil {
			b.Fatal(err)
		}
		if k == 0 {
			continue
		}
		finished += k
		for _, c := range done[:k] {
			if c.Status != 0 {
				b.Fatal(c.Err())
			}
			if submitted < b.N {
				if err := q.Read(c.Tag, n, next(), 8); err != nil {
					b.Fatal(err)
				}
				submitted++
			}
		}
		if err := q.Ring(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e3, "kIOPS")
}

// BenchmarkRandomRead4K is this project's device and driver, with a core each if there are two.
func BenchmarkRandomRead4K(b *testing.B) {
	for _, backend := range []string{"null:64M", "mem:64M"} {
		for _, mode := range []device.DoorbellMode{device.Shadow, device.Mmap} {
			for _, depth := range []int{1, 32, 128} {
				b.Run(fmt.Sprintf("%s/%v/depth=%d", backend[:4], mode, depth), func(b *testing.B) {
					benchRandomRead(b, backend, mode, depth)
				})
			}
		}
	}
}

// BenchmarkDriverSide is what the driver itself costs per command, without a device: to submit, ring once for a batch and
// take the completion.
func BenchmarkDriverSide(b *testing.B) {
	const batch = 32
	q, n := loneQueue(b, QueueConfig{Depth: 128, BufferSize: 4096})
	d := newLoneDevice(q)
	done := make([]Completion, batch)
	b.ReportAllocs()
	for b.Loop() {
		for tag := range uint16(batch) {
			if err := q.Read(tag, n, uint64(tag)*8, 8); err != nil {
				b.Fatal(err)
			}
		}
		_ = q.Ring()
		d.complete(0)
		if k, err := q.Poll(done); k != batch || err != nil {
			b.Fatal(k, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/command")
}
