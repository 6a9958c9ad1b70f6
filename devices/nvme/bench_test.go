package nvme

import (
	"fmt"
	"runtime"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
)

const benchSize = 1 << 30

func benchBackends(b *testing.B) map[string]block.Backend {
	null, err := block.Null(benchSize)
	if err != nil {
		b.Fatal(err)
	}
	return map[string]block.Backend{"null": null, "mem": memory(b, benchSize)}
}

// lcg is a cheap source of block addresses.
type lcg uint64

func (l *lcg) next(n uint64) uint64 {
	*l = *l*6364136223846793005 + 1442695040888963407
	return uint64(*l) >> 33 % n
}

// BenchmarkPoll is the cost of a 4 KiB command in the device alone: one core, no cache
// line changes sides.
func BenchmarkPoll(b *testing.B) {
	for _, kind := range []string{"null", "mem"} {
		b.Run(kind, func(b *testing.B) {
			w := &manualWorker{}
			g := newGuest(b, rig{mode: Trap, backends: []block.Backend{benchBackends(b)[kind]}, workers: func() worker { return w }})
			g.enable()
			if kind == "mem" {
				warm(b, g)
			}
			q := g.createQueue(1, 64)
			data := g.alloc(32)
			rnd := lcg(1)
			src := w.sources()[0]
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += 32 {
				for k := range uint64(32) {
					e := rw(spec.NVMRead, 1, rnd.next(benchSize/4096)*8, 8, data+k*pageSize, 0)
					e.Put(g.bytes(q.sq+uint64(q.tail)*64, 64))
					q.tail = (q.tail + 1) % q.size
				}
				dma.Store32(g.c.doorbells.page, sqDoorbell(1), q.tail)
				if src.Poll() != 32 {
					b.Fatal("not served")
				}
				dma.Store32(g.c.doorbells.page, cqDoorbell(1), q.tail)
			}
		})
	}
}

// BenchmarkIOPS is 4 KiB random I/O with the device's worker on one core and the driver
// on the other, through mapped doorbells.
func BenchmarkIOPS(b *testing.B) {
	for _, op := range []struct {
		name string
		code uint8
	}{{"read", spec.NVMRead}, {"write", spec.NVMWrite}} {
		for _, kind := range []string{"null", "mem"} {
			for _, depth := range []int{1, 32, 128} {
				b.Run(fmt.Sprintf("%s/%s/depth=%d", op.name, kind, depth), func(b *testing.B) {
					benchIOPS(b, kind, op.code, depth)
				})
			}
		}
	}
}

func benchIOPS(b *testing.B, kind string, op uint8, depth int) {
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	g := newGuest(b, rig{mode: Mmap, backends: []block.Backend{benchBackends(b)[kind]}, workers: func() worker { return e.Worker(0) }})
	g.enable()
	size := uint32(256)
	q := g.createQueue(1, size)
	data := g.alloc(depth)
	sq, cq := g.bytes(q.sq, int(size)*64), g.bytes(q.cq, int(size)*16)
	page := g.c.doorbells.page
	rnd := lcg(1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var tail, head uint32
	phase := uint64(1) << 48
	submit := func(slot uint16) {
		en := rw(op, 1, rnd.next(benchSize/4096)*8, 8, data+uint64(slot)*pageSize, 0)
		en.CID = slot
		en.Put(sq[tail*64:])
		if tail++; tail == size {
			tail = 0
		}
	}
	// Touch the storage, or reads find nothing but one page of zeroes.
	if kind == "mem" {
		warm(b, g)
	}
	b.ResetTimer()
	left, inflight := b.N, 0
	for left > 0 && inflight < depth {
		submit(uint16(inflight))
		left--
		inflight++
	}
	dma.StoreRelease32(page, sqDoorbell(1), tail)
	for inflight > 0 {
		got := false
		for {
			hi := dma.Load64(cq, int(head)*16+8)
			if hi&(1<<48) != phase {
				break
			}
			got = true
			if head++; head == size {
				head, phase = 0, phase^1<<48
			}
			inflight--
			if left > 0 {
				submit(uint16(hi >> 32))
				left--
				inflight++
			}
		}
		if got {
			dma.StoreRelease32(page, sqDoorbell(1), tail)
			dma.StoreRelease32(page, cqDoorbell(1), head)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e3, "kIOPS")
}

func warm(b *testing.B, g *guest) {
	r := block.Request{Op: block.Write, Length: 1 << 20, Buffers: [][]byte{make([]byte, 1<<20)}}
	for ; r.Offset < benchSize; r.Offset += r.Length {
		if _, err := g.c.namespace(1).backend.Submit(&r); err != nil {
			b.Fatal(err)
		}
	}
}
