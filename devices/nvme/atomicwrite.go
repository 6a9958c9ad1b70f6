package nvme

import (
	"runtime"
	"sync"
	"sync/atomic"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// What one worker carries out nobody sees half of as long as it is alone. When there are
// more, and the storage is copied from and to by whoever has the command, the namespace's
// stripes see to it that a command reads all or nothing of what another one writes (NVM
// command set 1.0, 2.1.4). Asynchronous storage gives what it gives, and blocks with
// metadata have a lock of their own.

const (
	stripeShift = 16 // a stripe has so many bytes, as an exponent
	stripeCount = 256
)

// stripes has a counter for each stripe, and for those a multiple of stripeCount away. It is
// odd while somebody writes there, and is never what it was before.
type stripes [stripeCount]atomic.Uint32

// span is a run of stripes.
type span struct{ first, n uint32 }

func spanOf(off, length int64) span {
	first := uint64(off) >> stripeShift
	n := (uint64(off+length-1)>>stripeShift - first) + 1
	return span{uint32(first % stripeCount), uint32(min(n, stripeCount))}
}

// each calls f for the counters of a span in the order in which all lock them.
func (s *stripes) each(x span, f func(c *atomic.Uint32)) {
	end := x.first + x.n
	for i := stripeCount + uint32(0); i < end; i++ {
		f(&s[i-stripeCount])
	}
	for i := x.first; i < min(end, stripeCount); i++ {
		f(&s[i])
	}
}

// spins is how often a counter is looked at before others have the processor.
const spins = 64

func (s *stripes) lock(x span) {
	if x.n == 1 {
		lockStripe(&s[x.first])
		return
	}
	s.each(x, lockStripe)
}

func lockStripe(c *atomic.Uint32) {
	for i := 0; ; i++ {
		if v := c.Load(); v&1 == 0 && c.CompareAndSwap(v, v+1) {
			return
		}
		if i >= spins {
			runtime.Gosched()
		}
	}
}

func (s *stripes) unlock(x span) {
	if x.n == 1 {
		s[x.first].Add(1)
		return
	}
	s.each(x, func(c *atomic.Uint32) { c.Add(1) })
}

// before and after are around a read without the lock: it has seen no half of anything if
// after says that the sum is what before said.
func (s *stripes) before(x span) (sum uint64, quiet bool) {
	if x.n == 1 {
		v := s[x.first].Load()
		return uint64(v), v&1 == 0
	}
	quiet = true
	s.each(x, func(c *atomic.Uint32) {
		v := c.Load()
		sum += uint64(v)
		quiet = quiet && v&1 == 0
	})
	return sum, quiet
}

func (s *stripes) after(x span, sum uint64) bool {
	if x.n == 1 {
		return uint64(settled(&s[x.first])) == sum
	}
	s.each(x, func(c *atomic.Uint32) { sum -= uint64(settled(c)) })
	return sum == 0
}

// attempts is how often a read tries to do without the lock.
const attempts = 4

// heldStripes is what a group has locked, for the case that the memory of its client is gone.
type heldStripes struct {
	stripes *stripes
	span    span
}

func (h *heldStripes) lock(s *stripes, x span) {
	s.lock(x)
	*h = heldStripes{s, x}
}

func (h *heldStripes) unlock() {
	if h.stripes != nil {
		h.stripes.unlock(h.span)
		h.stripes = nil
	}
}

// submitWhole carries out a Read or Write on storage that is not asynchronous, while others
// may be at the same blocks.
func (g *group) submitWhole(ns *namespace, r *block.Request) error {
	s, x := &ns.stripes, spanOf(r.Offset, r.Length)
	for range attempts {
		if r.Op != block.Read {
			break
		}
		sum, quiet := s.before(x)
		if !quiet {
			continue
		}
		if _, err := ns.backend.Submit(r); err != nil || s.after(x, sum) {
			return err
		}
	}
	g.held.lock(s, x)
	_, err := ns.backend.Submit(r)
	g.held.unlock()
	return err
}

// whole runs f, which reads or writes n blocks from lba, so that nobody sees half of it nor
// it half of what others do.
func (ns *namespace) whole(lba, n uint64, f func() spec.Status) spec.Status {
	if !ns.atomicWrites() || ns.protection.metadata > 0 {
		return f()
	}
	x := spanOf(ns.bytes(lba), ns.bytes(n))
	ns.stripes.lock(x)
	defer ns.stripes.unlock(x)
	return f()
}

// atomicWrites says whether writes of every size that a command can have are atomic for
// whoever reads.
func (ns *namespace) atomicWrites() bool { return !ns.info.Async || ns.protection.metadata > 0 }

// atomicUnits fills in what Identify Namespace says of it: there are no boundaries, and
// of losses of power nothing is promised but for single blocks.
func (c *Controller) atomicUnits(ns *namespace, id *spec.IdentifyNamespace) {
	size := ns.bytes(1)
	if ns.format.extended {
		size += int64(ns.metadataBytes(1))
	}
	most := uint16(max(int64(c.cfg.MaxTransfer)/size, 1) - 1)
	id.NSFEAT |= spec.NSFeatAtomics
	id.NACWU = most
	if ns.atomicWrites() {
		id.NAWUN = most
	}
}

// crowd is whether more than one goroutine may be at the storage.
type crowd struct {
	here atomic.Bool
	mu   sync.Mutex
}

// gather lets another goroutine come, once those that thought they were alone know of it.
func (s *Subsystem) gather() {
	s.crowd.mu.Lock()
	defer s.crowd.mu.Unlock()
	if !s.crowd.here.Swap(true) {
		s.passGroups()
	}
}
