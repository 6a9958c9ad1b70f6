package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	device "vfiouser/devices/nvme"
	driver "vfiouser/drivers/nvme"
)

// BenchmarkNVMeQueues measures random 4 KiB reads with the same number of commands under way
// on more and more queues. (The driver has one of its own.)
func BenchmarkNVMeQueues(b *testing.B) {
	const depth = 128
	for _, backend := range []string{"null:1G", "mem:1G"} {
		for _, n := range []int{1, 8, 32, 127} {
			b.Run(fmt.Sprintf("%s/queues=%d", backend[:4], n), func(b *testing.B) {
				r := newRig(b, device.Mmap, backend)
				pin(b, 1)
				var queues []*driver.Queue
				for range n {
					queues = append(queues, r.newQueue(b, driver.QueueConfig{Depth: depth / n, BufferSize: 4096}))
				}
				fill(b, r.ns)
				next := randomBlocks(r.ns.Blocks())
				elapsed := r.keepBusy(b, queues, func(i int, tag uint16) error { return queues[i].Read(tag, r.ns, next(), 1) })
				b.ReportMetric(float64(b.N)/elapsed.Seconds()/1e6, "MIOPS")
			})
		}
	}
}

// BenchmarkNVMeIdleQueues measures one command at a time on one queue, with others beside it
// that do nothing.
func BenchmarkNVMeIdleQueues(b *testing.B) {
	for _, n := range []int{0, 31, 126} {
		b.Run(fmt.Sprintf("idle=%d", n), func(b *testing.B) {
			r := newRig(b, device.Mmap, "null:1G")
			pin(b, 1)
			for range n {
				r.newQueue(b, driver.QueueConfig{Depth: 1})
			}
			q := r.newQueue(b, driver.QueueConfig{Depth: 1})
			r.keepBusy(b, []*driver.Queue{q}, func(_ int, tag uint16) error { return q.Read(tag, r.ns, 0, 1) })
		})
	}
}

// BenchmarkNVMeNamespaces measures random 4 KiB reads, 128 at a time, from more and more
// namespaces that have the same size together.
func BenchmarkNVMeNamespaces(b *testing.B) {
	const size = 1 << 30
	for _, kind := range []string{"null", "mem"} {
		for _, n := range []int{1, 32, 1024} {
			b.Run(fmt.Sprintf("%s/namespaces=%d", kind, n), func(b *testing.B) {
				backends := make([]string, n)
				for i := range backends {
					backends[i] = fmt.Sprintf("%s:%d", kind, size/n)
				}
				r := newRig(b, device.Mmap, backends...)
				pin(b, 1)
				q := r.newQueue(b, driver.QueueConfig{Depth: 128, BufferSize: 4096})
				all := r.ctrl.Namespaces()
				for _, ns := range all {
					fill(b, ns)
				}
				type place struct {
					ns  *driver.Namespace
					lba uint64
				}
				places := make([]place, 1<<16)
				for i := range places {
					ns := all[rand.IntN(n)]
					places[i] = place{ns, rand.Uint64N(ns.Blocks())}
				}
				next := 0
				elapsed := r.keepBusy(b, []*driver.Queue{q}, func(_ int, tag uint16) error {
					p := &places[next&(len(places)-1)]
					next++
					return q.Read(tag, p.ns, p.lba, 1)
				})
				b.ReportMetric(float64(b.N)/elapsed.Seconds()/1e6, "MIOPS")
			})
		}
	}
}

// BenchmarkNVMeSequential measures sequential reads of 128 KiB, 16 at a time, and beside them
// what one core copies from memory like that of the namespace to the same buffers.
func BenchmarkNVMeSequential(b *testing.B) {
	const length, depth, size = 128 << 10, 16, 1 << 30
	for _, op := range []string{"read", "write"} {
		b.Run(op, func(b *testing.B) {
			r := newRig(b, device.Mmap, "mem:1G")
			pin(b, 1)
			q := r.newQueue(b, driver.QueueConfig{Depth: depth, BufferSize: length})
			fill(b, r.ns)
			for tag := range depth { // touch them
				clear(q.Buffer(uint16(tag)))
			}
			submit := q.Read
			if op == "write" {
				submit = q.Write
			}
			blocks := uint64(length / r.ns.BlockSize())
			next := uint64(0)
			b.SetBytes(length)
			elapsed := r.keepBusy(b, []*driver.Queue{q}, func(_ int, tag uint16) error {
				lba := next * blocks % r.ns.Blocks()
				next++
				return submit(tag, r.ns, lba, uint32(blocks))
			})
			limit := copySequential(b, q, size, op == "write")
			b.ReportMetric(limit.Seconds()/elapsed.Seconds(), "of-memcpy")
		})
	}
}

// copySequential copies b.N buffers and returns the time that takes.
func copySequential(b *testing.B, q *driver.Queue, size int, write bool) time.Duration {
	b.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(mem)
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	begin := time.Now()
	at := 0
	for i := range b.N {
		buf := q.Buffer(uint16(i % q.Depth()))
		if write {
			copy(mem[at:], buf)
		} else {
			copy(buf, mem[at:])
		}
		if at += len(buf); at == len(mem) {
			at = 0
		}
	}
	elapsed := time.Since(begin)
	runtime.KeepAlive(mem)
	return elapsed
}
