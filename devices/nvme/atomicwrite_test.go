package nvme

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// Hosts on several workers, and one by message, write and read the same blocks: nobody
// reads, compares or copies half of a write.
func TestWritesAreAtomic(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, pages := range []int{1, 32} {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			guests, queues := sharing(t, 4, rig{backends: []block.Backend{memory(t, 1<<20)}})
			blocks := pages * pageSize / 512
			const lba = 100 // across stripes
			var stop atomic.Bool
			var wg sync.WaitGroup
			for i := range guests {
				g, q := guests[i], queues[i]
				data, list := g.alloc(pages), g.alloc(1)
				p := g.bytes(data, pages*pageSize)
				prp1, prp2 := g.prps(data, pages*pageSize, list, false)
				wg.Go(func() {
					for n := range 300 {
						if stop.Load() {
							return
						}
						if i < 2 {
							for k := range p {
								p[k] = byte(2*n + i)
							}
							if st := q.status(rw(spec.NVMWrite, 1, lba, blocks, prp1, prp2)); !st.OK() {
								t.Error(st)
							}
							continue
						}
						if i == 3 { // by a courier, through other blocks
							(&spec.CopyRange{LBA: lba, Blocks: uint32(blocks)}).Put(g.bytes(list, spec.CopyRangeSize))
							e := spec.SubmissionEntry{Opcode: spec.NVMCopy, NSID: 1, PRP1: list}
							e.SetLBA(1000)
							if st := q.status(e); !st.OK() {
								t.Error(st)
							}
							prp1, prp2 = g.prps(data, pages*pageSize, list, false)
						}
						from := uint64(lba)
						if i == 3 {
							from = 1000
						}
						if st := q.status(rw(spec.NVMRead, 1, from, blocks, prp1, prp2)); !st.OK() {
							t.Error(st)
						}
						if !bytes.Equal(p[1:], p[:len(p)-1]) {
							t.Errorf("host %d, round %d: half of a write", i, n)
							stop.Store(true)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// The lock of stripes lets one in at a time, wherever a span begins.
func TestStripes(t *testing.T) {
	var s stripes
	var inside [4 * stripeCount]atomic.Int32
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			for n := range int64(300) {
				off, length := (n*37+i*91)%(2*stripeCount)<<stripeShift+n, (n%33)<<stripeShift+1
				x := spanOf(off, length)
				s.lock(x)
				for k := off >> stripeShift; k <= (off+length-1)>>stripeShift; k++ {
					if inside[k%stripeCount].Add(1) != 1 {
						t.Error("two at the same stripe")
					}
				}
				for k := off >> stripeShift; k <= (off+length-1)>>stripeShift; k++ {
					inside[k%stripeCount].Add(-1)
				}
				s.unlock(x)
			}
		})
	}
	wg.Wait()
	x := spanOf(255<<stripeShift, 3<<stripeShift)
	sum, quiet := s.before(x)
	if !quiet || !s.after(x, sum) {
		t.Error("not quiet")
	}
	s.lock(spanOf(1<<stripeShift, 1))
	if _, quiet := s.before(x); quiet || s.after(x, sum) {
		t.Error("a write is not noticed")
	}
	s.unlock(spanOf(1<<stripeShift, 1))
	if s.after(x, sum) {
		t.Error("a write that has ended is not noticed")
	}
}

func TestStripesDoNotAllocate(t *testing.T) {
	var s stripes
	n := testing.AllocsPerRun(100, func() {
		x := spanOf(4096, 1<<20)
		sum, _ := s.before(x)
		s.after(x, sum)
		s.lock(x)
		s.unlock(x)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkStripes is what a command of 4 KiB costs more when its worker is not alone.
func BenchmarkStripes(b *testing.B) {
	var s stripes
	b.Run("read", func(b *testing.B) {
		for i := range b.N {
			x := spanOf(int64(i)<<12, 4096)
			if sum, _ := s.before(x); !s.after(x, sum) {
				b.Fatal("not quiet")
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		for i := range b.N {
			x := spanOf(int64(i)<<12, 4096)
			s.lock(x)
			s.unlock(x)
		}
	})
}

func TestAtomicUnitsAreAnnounced(t *testing.T) {
	file, _ := fileBackend(t, 1<<20)
	g, _ := started(t, rig{backends: []block.Backend{memory(t, 1<<20), file}})
	for nsid, want := range map[uint32]uint16{1: 2047, 2: 0} {
		page := g.alloc(1)
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: nsid, CDW10: spec.CNSNamespace, PRP1: page})
		var id spec.IdentifyNamespace
		id.Get(g.bytes(page, pageSize))
		if id.NSFEAT&spec.NSFeatAtomics == 0 || id.NAWUN != want || id.NACWU != 2047 || id.NAWUPF != 0 || id.NABSN != 0 || id.NABO != 0 {
			t.Errorf("namespace %d: NSFEAT %#x, NAWUN %d, NACWU %d", nsid, id.NSFEAT, id.NAWUN, id.NACWU)
		}
	}
}
