package bench

import (
	"context"
	"fmt"
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

func newRig(b *testing.B, mode device.DoorbellMode, backends ...string) *rig {
	b.Helper()
	cfg := device.Config{Queues: device.MaxQueues, Doorbells: mode}
	for _, text := range backends {
		store, err := block.Open(text)
		if err != nil {
			b.Fatal(err)
		}
		cfg.Namespaces = append(cfg.Namespaces, device.Namespace{Backend: store, BlockSize: 4096})
	}
	disk, err := device.New(cfg)
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

// newQueue makes a queue that lives as long as the rig.
func (r *rig) newQueue(b *testing.B, cfg driver.QueueConfig) *driver.Queue {
	b.Helper()
	q, err := r.ctrl.NewQueue(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	return q
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
	r := newRig(b, mode, backend)
	pin(b, 1)
	q := r.newQueue(b, driver.QueueConfig{Depth: depth, BufferSize: 4096})
	defer q.Close()
	fill(b, r.ns)
	next := randomBlocks(r.ns.Blocks())
	submit := q.Read
	if write {
		submit = q.Write
	}
	elapsed := r.keepBusy(b, []*driver.Queue{q}, func(_ int, tag uint16) error { return submit(tag, r.ns, next(), 1) })
	b.ReportMetric(float64(b.N)/elapsed.Seconds()/1e6, "MIOPS")
	b.ReportMetric(elapsed.Seconds()*1e6*float64(min(depth, b.N))/float64(b.N), "mean-µs")
}

// keepBusy has post submit b.N commands, to all queues in turn, so that none of their tags is
// idle. It returns the time that took.
func (r *rig) keepBusy(b *testing.B, queues []*driver.Queue, post func(queue int, tag uint16) error) time.Duration {
	b.Helper()
	submit := func(i int, tag uint16) {
		if err := post(i, tag); err != nil {
			b.Fatal(err)
		}
	}
	done := make([]driver.Completion, queues[0].Depth())
	before := r.commands(b)
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	left, inflight := b.N, 0
	for i, q := range queues {
		for tag := range min(q.Depth(), left) {
			submit(i, uint16(tag))
			left--
			inflight++
		}
		q.Ring()
	}
	for inflight > 0 {
		for i, q := range queues {
			n, err := q.Poll(done)
			if err != nil {
				b.Fatal(err)
			}
			for k := range done[:n] {
				if err := done[k].Err(); err != nil {
					b.Fatal(err)
				}
				if left > 0 {
					submit(i, done[k].Tag)
					left--
				} else {
					inflight--
				}
			}
			if n > 0 {
				q.Ring()
			}
		}
	}
	elapsed := time.Since(begin)
	b.StopTimer()
	if n := r.commands(b) - before; n != uint64(b.N) {
		b.Errorf("the device counts %d commands, the driver %d", n, b.N)
	}
	return elapsed
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
