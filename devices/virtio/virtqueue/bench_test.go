package virtqueue

import (
	"fmt"
	"runtime"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

const benchBatch = 32

// benchDriver offers chains of one descriptor, batch by batch, with as little work as there
// can be: the ring is written beforehand as far as possible.
type benchDriver struct {
	cfg   Config
	desc  []byte
	avail []byte
	used  []byte
	meta  spec.PackedDesc // but for what says that it is available
	next  int             // chains offered
	seen  int             // chains found used
}

func newBenchDriver(b testing.TB, cfg Config) (*benchDriver, *Queue, *guest) {
	s, q := newSplit(b, cfg)
	g := s.g
	d := &benchDriver{cfg: s.cfg, meta: spec.PackedDesc{Len: 64}, desc: g.at(s.cfg.Desc, int(spec.DescBytes(cfg.Size)))}
	if cfg.Packed {
		dma.Store32(g.at(s.cfg.Driver, 4), 0, spec.EventWord(0, spec.EventDisable))
	} else {
		d.avail = g.at(s.cfg.Driver, int(spec.AvailBytes(cfg.Size)))
		d.used = g.at(s.cfg.Device, int(spec.UsedBytes(cfg.Size)))
		dma.Store16(d.avail, spec.AvailFlags, spec.AvailNoInterrupt)
	}
	for i := range int(cfg.Size) {
		addr := dataAt + uint64(i)*64
		if cfg.Packed {
			dma.Store64(d.desc, 16*i, addr)
			continue
		}
		s.desc(i, spec.Desc{Addr: addr, Len: 64})
		dma.Store16(d.avail, spec.AvailRing+2*i, uint16(i))
	}
	return d, q, g
}

func (d *benchDriver) offer(n int) {
	size := int(d.cfg.Size)
	if !d.cfg.Packed {
		d.next += n
		dma.StoreRelease16(d.avail, spec.AvailIndex, uint16(d.next))
		return
	}
	for range n {
		p := d.meta
		p.Flags |= spec.PackedAvail(d.next/size%2 == 0)
		dma.StoreRelease64(d.desc, 16*(d.next%size)+8, p.Word())
		d.next++
	}
}

// collect looks for used chains.
func (d *benchDriver) collect() {
	if !d.cfg.Packed {
		d.seen += int(dma.Load16(d.used, spec.UsedIndex) - uint16(d.seen))
		return
	}
	size := int(d.cfg.Size)
	for d.seen < d.next {
		flags := uint16(dma.Load64(d.desc, 16*(d.seen%size)+8) >> 48)
		if flags&(spec.DescAvail|spec.DescUsed) != spec.PackedUsed(d.seen/size%2 == 0) {
			return
		}
		d.seen++
	}
}

func benchLayouts(b *testing.B, f func(b *testing.B, cfg Config)) {
	for _, packed := range []bool{false, true} {
		b.Run(map[bool]string{false: "split", true: "packed"}[packed], func(b *testing.B) {
			f(b, Config{Size: 256, Packed: packed, EventIdx: true})
		})
	}
}

// perChain reports the time of one of n chains.
func perChain(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/chain")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRing is the device's work for chains of one descriptor, the driver's part of
// which is done before on the same core: what it costs when memory is in the cache.
func BenchmarkRing(b *testing.B) {
	for _, batch := range []int{1, benchBatch} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			benchLayouts(b, func(b *testing.B, cfg Config) {
				d, q, _ := newBenchDriver(b, cfg)
				chains := make([]Chain, batch)
				for b.Loop() {
					d.offer(batch)
					n, err := q.Take(chains)
					if n != batch {
						b.Fatal(n, err)
					}
					for i := range chains {
						q.Push(&chains[i], 0)
					}
					q.Publish()
				}
				perChain(b, b.N*batch)
			})
		})
	}
}

// BenchmarkIndirect is the same for chains of two buffers in an indirect table.
func BenchmarkIndirect(b *testing.B) {
	benchLayouts(b, func(b *testing.B, cfg Config) {
		cfg.Indirect = true
		d, q, g := newBenchDriver(b, cfg)
		for i := range int(cfg.Size) {
			table := tablesAt + 32*uint64(i)
			g.desc(table, 0, spec.Desc{Addr: dataAt, Len: 12, Flags: spec.DescNext, Next: 1})
			g.desc(table, 1, spec.Desc{Addr: dataAt + 64, Len: 64})
			if cfg.Packed {
				g.desc(table, 0, spec.Desc{Addr: dataAt, Len: 12})
				dma.Store64(d.desc, 16*i, table)
				d.meta = spec.PackedDesc{Len: 32, Flags: spec.DescIndirect}
			} else {
				g.desc(d.cfg.Desc, i, spec.Desc{Addr: table, Len: 32, Flags: spec.DescIndirect})
			}
		}
		chains := make([]Chain, benchBatch)
		for b.Loop() {
			d.offer(benchBatch)
			if n, err := q.Take(chains); n != benchBatch || len(chains[0].Readable) != 2 {
				b.Fatal(n, err)
			}
			for i := range chains {
				q.Push(&chains[i], 0)
			}
			q.Publish()
		}
		perChain(b, b.N*benchBatch)
	})
}

// BenchmarkTwoCores has the driver on a core of its own: cache lines travel.
func BenchmarkTwoCores(b *testing.B) {
	benchLayouts(b, func(b *testing.B, cfg Config) {
		d, q, _ := newBenchDriver(b, cfg)
		total := b.N
		done := make(chan struct{})
		go func() {
			defer close(done)
			chains := make([]Chain, benchBatch)
			for used := 0; used < total; {
				n, err := q.Take(chains)
				if err != nil {
					b.Error(err)
					return
				}
				for i := range chains[:n] {
					q.Push(&chains[i], 0)
				}
				q.Publish()
				used += n
			}
		}()
		for spins := 0; d.seen < total; spins++ {
			d.collect()
			if room := min(int(cfg.Size)-(d.next-d.seen), total-d.next); room >= min(benchBatch, total-d.next) && room > 0 {
				d.offer(min(room, benchBatch))
			} else if spins&0xfff == 0 {
				runtime.Gosched()
			}
		}
		<-done
	})
}

// Nothing is allocated for a chain, by whatever way it is taken, once the buffers are there.
func TestNoAllocations(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, how := range []access{mapped, message} {
			cfg := Config{Size: 64, Packed: packed, Indirect: true, EventIdx: true}
			d, q, g := newBenchDriver(t, cfg)
			if how == message {
				q.SetRemote(g)
			}
			chains := make([]Chain, benchBatch)
			allocs := testing.AllocsPerRun(100, func() {
				d.offer(benchBatch)
				if n, err := q.Take(chains); n != benchBatch {
					t.Fatal(n, err)
				}
				q.Untake(1)
				for i := range chains[:benchBatch-1] {
					q.Push(&chains[i], 0)
				}
				q.Publish()
				q.Arm()
				q.Disarm()
				if n, err := q.Take(chains); n != 1 {
					t.Fatal(n, err)
				}
				q.Push(&chains[0], 0)
				q.Publish()
			})
			if allocs != 0 {
				t.Errorf("packed %v, %v: %v allocations", packed, how, allocs)
			}
		}
	}
}
