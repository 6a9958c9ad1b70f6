package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/client"
	device "vfiouser/devices/nvme"
	driver "vfiouser/drivers/nvme"
	"vfiouser/engine"
)

// rig is an NVMe device whose worker is pinned to core 0, attached by the driver,
// whose goroutine, the benchmark's, is pinned to core 1.
type rig struct {
	ctrl *driver.Controller
	ns   *driver.Namespace
}

func newRig(b *testing.B, backend string, mode device.DoorbellMode) *rig {
	b.Helper()
	store, err := block.Open(backend)
	if err != nil {
		b.Fatal(err)
	}
	disk, err := device.New(device.Config{
		Namespaces: []device.Namespace{{Backend: store, BlockSize: 4096}}, Doorbells: mode,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { disk.Close() })
	e, err := engine.New(engine.Config{Workers: 1, WorkerCPUs: []int{0}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	ep, err := e.Register(filepath.Join(b.TempDir(), "nvme"), disk)
	if err != nil {
		b.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	dev, err := client.Attach(ctx, ep.Path())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dev.Close() })
	mem, err := client.NewMemory(64 << 20)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { mem.Close() })
	ctrl, err := driver.Open(ctx, dev, mem)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ctrl.Close() })
	return &rig{ctrl, ctrl.Namespaces()[0]}
}

// BenchmarkNVMe measures random 4 KiB I/O with the device on one core and the
// driver on the other. mean-µs is the mean latency, which is depth over rate.
func BenchmarkNVMe(b *testing.B) {
	for _, backend := range []string{"null:1G", "mem:1G"} {
		for _, op := range []string{"read", "write"} {
			for _, depth := range []int{1, 32, 128} {
				name := fmt.Sprintf("%s/%s/depth=%d", backend[:4], op, depth)
				b.Run(name, func(b *testing.B) { randomIO(b, device.Mmap, backend, op == "write", depth) })
			}
		}
	}
}

// BenchmarkNVMeDoorbells measures random 4 KiB reads in each way to ring a doorbell.
func BenchmarkNVMeDoorbells(b *testing.B) {
	for _, mode := range []device.DoorbellMode{device.Mmap, device.Shadow, device.Trap} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/depth=%d", mode, depth), func(b *testing.B) {
				randomIO(b, mode, "mem:1G", false, depth)
			})
		}
	}
}

func randomIO(b *testing.B, mode device.DoorbellMode, backend string, write bool, depth int) {
	r := newRig(b, backend, mode)
	pin(b, 1)
	q, err := r.ctrl.NewQueue(context.Background(), driver.QueueConfig{Depth: depth, BufferSize: 4096})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	fill(b, r.ns)
	lbas := make([]uint64, 1<<16)
	for i := range lbas {
		lbas[i] = rand.Uint64N(r.ns.Blocks())
	}
	submit := q.Read
	if write {
		submit = q.Write
	}
	done := make([]driver.Completion, depth)
	next := 0
	post := func(tag uint16) {
		if err := submit(tag, r.ns, lbas[next&(len(lbas)-1)], 1); err != nil {
			b.Fatal(err)
		}
		next++
	}
	before := r.commands(b)
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	inflight := 0
	for tag := range min(depth, b.N) {
		post(uint16(tag))
		inflight++
	}
	q.Ring()
	for inflight > 0 {
		n, err := q.Poll(done)
		if err != nil {
			b.Fatal(err)
		}
		for i := range done[:n] {
			if err := done[i].Err(); err != nil {
				b.Fatal(err)
			}
			if next < b.N {
				post(done[i].Tag)
			} else {
				inflight--
			}
		}
		if n > 0 {
			q.Ring()
		}
	}
	elapsed := time.Since(begin)
	b.StopTimer()
	if n := r.commands(b) - before; n != uint64(b.N) {
		b.Errorf("the device counts %d commands, the driver %d", n, b.N)
	}
	b.ReportMetric(float64(b.N)/elapsed.Seconds()/1e6, "MIOPS")
	b.ReportMetric(elapsed.Seconds()*1e6*float64(min(depth, b.N))/float64(b.N), "mean-µs")
}

// commands is how many reads and writes the device has counted.
func (r *rig) commands(b *testing.B) uint64 {
	b.Helper()
	log, err := r.ctrl.Smart(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return log.HostReads + log.HostWrites
}

// fill writes the namespace, so that its memory is populated.
func fill(b *testing.B, ns *driver.Namespace) {
	b.Helper()
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i >> 12)
	}
	for off := int64(0); off < ns.Size(); off += int64(len(chunk)) {
		if _, err := ns.WriteAt(chunk, off); err != nil {
			b.Fatal(err)
		}
	}
}
