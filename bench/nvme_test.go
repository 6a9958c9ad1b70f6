package bench

import (
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	device "vfiouser/devices/nvme"
)

// The device counts what was asked of it: n operations are n commands, however many are under
// way, and at whatever rate.
func TestDriveDoesWhatItIsAskedFor(t *testing.T) {
	for _, d := range []drive{
		{backend: "null", size: 4096, depth: 1, mode: device.Mmap},
		{backend: "mem", size: 512, depth: 32, mode: device.Shadow},
		{backend: "mem", write: true, size: 128 << 10, depth: 16, sequential: true, mode: device.Trap},
		{backend: "null", size: 4096, depth: 128, queues: 32, mode: device.Mmap},
		{backend: "null", size: 4096, depth: 1, idle: 31, mode: device.Mmap},
		{backend: "mem", size: 4096, depth: 8, namespaces: 4, mode: device.Mmap},
		{backend: "cached", size: 4096, depth: 8, mode: device.Mmap},
		{backend: "nbd", size: 4096, depth: 8, mode: device.Mmap},
		{backend: "nbd", write: true, size: 128 << 10, depth: 2, mode: device.Mmap},
		{backend: "null", size: 4096, depth: loadDepth, load: 50, mode: device.Mmap},
	} {
		t.Run(d.String(), func(t *testing.T) {
			env := newEnv(t)
			env.small = true
			r, s, err := newDrive(env, d)
			if err != nil {
				t.Fatal(err)
			}
			count := func(what string, want int, do func() error) {
				t.Helper()
				before, err := r.commands()
				if err != nil {
					t.Fatal(err)
				}
				if err := do(); err != nil {
					t.Fatal(what, want, err)
				}
				after, err := r.commands()
				if err != nil {
					t.Fatal(err)
				}
				if got := after - before; got != uint64(want) {
					t.Errorf("%s of %d: %d commands", what, want, got)
				}
			}
			for _, n := range []int{1, 7, 300} {
				count("run", n, func() error { return s.Run(n) })
			}
			if d.load != 0 {
				h := hdrhistogram.New(1, 60e9, 3)
				count("latencies", 300, func() error { return s.Latency(300, h) })
				if h.TotalCount() != 300 {
					t.Error(h.TotalCount(), "latencies")
				}
			}
		})
	}
}
