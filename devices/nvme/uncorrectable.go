package nvme

import (
	"slices"
	"sync"

	"vfiouser/devices/nvme/spec"
)

// maxExtents bounds the runs of uncorrectable blocks of all namespaces together.
const maxExtents = 1 << 14

// extent is a run of blocks.
type extent struct{ lba, n uint64 }

// uncorrectable is the blocks that Write Uncorrectable has made unreadable until they
// are written again. They outlive resets and clients, and move with the state.
type uncorrectable struct {
	mu    sync.Mutex
	total int // extents of all namespaces
}

// mark makes blocks unreadable; false means that there are too many runs of them.
func (u *uncorrectable) mark(ns *namespace, lba, n uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	first, last := ns.touched(lba, n, 1)
	end := lba + n
	if first < last {
		lba = min(lba, ns.bad[first].lba)
		end = max(end, ns.bad[last-1].lba+ns.bad[last-1].n)
	} else if u.total >= maxExtents {
		return false
	}
	u.replace(ns, first, last, extent{lba, end - lba})
	return true
}

// writable says whether written could take note of these blocks. It may be one extent
// too optimistic for each goroutine that asks at the same time.
func (u *uncorrectable) writable(ns *namespace, lba, n uint64) bool {
	if ns.clean(lba, n) {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	first, last := ns.touched(lba, n, 0)
	splits := last-first == 1 && ns.bad[first].lba < lba && ns.bad[first].lba+ns.bad[first].n > lba+n
	return !splits || u.total < maxExtents
}

// written makes blocks readable.
func (u *uncorrectable) written(ns *namespace, lba, n uint64) {
	if ns.clean(lba, n) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	first, last := ns.touched(lba, n, 0)
	if first == last {
		return
	}
	var rest []extent
	if e := ns.bad[first]; e.lba < lba {
		rest = append(rest, extent{e.lba, lba - e.lba})
	}
	if e := ns.bad[last-1]; e.lba+e.n > lba+n {
		rest = append(rest, extent{lba + n, e.lba + e.n - lba - n})
	}
	u.replace(ns, first, last, rest...)
}

// forget takes all marks of a view that is of no use any more.
func (u *uncorrectable) forget(ns *namespace) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.total -= len(ns.bad)
	ns.bad = nil
}

// keep gives the marks of a view to the next one, which may be shorter.
func (u *uncorrectable) keep(ns, next *namespace) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range ns.bad {
		if e.lba < next.blocks {
			next.bad = append(next.bad, extent{e.lba, min(e.n, next.blocks-e.lba)})
		}
	}
	u.total += len(next.bad)
	next.cleanTo()
}

// first finds the first unreadable one of n blocks from lba.
func (u *uncorrectable) first(ns *namespace, lba, n uint64) (bad uint64, found bool) {
	if ns.clean(lba, n) {
		return 0, false
	}
	return u.find(ns, lba, n)
}

// find is first without the short cut.
func (u *uncorrectable) find(ns *namespace, lba, n uint64) (bad uint64, found bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	first, last := ns.touched(lba, n, 0)
	if first == last {
		return 0, false
	}
	return max(lba, ns.bad[first].lba), true
}

func (u *uncorrectable) replace(ns *namespace, first, last int, by ...extent) {
	u.total += len(by) - (last - first)
	ns.bad = slices.Replace(ns.bad, first, last, by...)
	ns.cleanTo()
}

// touched finds the extents, bad[first:last], that n blocks from lba overlap, or with
// slack 1 are next to.
func (ns *namespace) touched(lba, n, slack uint64) (first, last int) {
	first, _ = slices.BinarySearchFunc(ns.bad, lba, func(e extent, lba uint64) int {
		if e.lba+e.n+slack <= lba {
			return -1
		}
		return 1
	})
	last = first
	for last < len(ns.bad) && ns.bad[last].lba < lba+n+slack {
		last++
	}
	return first, last
}

// cleanTo moves the limits that prepare and clean look at.
func (ns *namespace) cleanTo() {
	limit := ns.blocks
	if len(ns.bad) > 0 {
		limit = ns.bad[0].lba
	}
	ns.unmarked.Store(limit)
	if ns.gate.shut.Load() || ns.barred.Load() != 0 || ns.refusal.Load() != 0 || ns.protection.metadata > 0 {
		limit = 0
	}
	ns.readable.Store(limit)
}

// clean says whether blocks lie before all unreadable ones.
func (ns *namespace) clean(lba, n uint64) bool {
	limit := ns.unmarked.Load()
	return n <= limit && lba <= limit-n
}

// state is, for each namespace, the first block and the number of blocks of each extent.
func (u *uncorrectable) state(c *Controller) (st [][]uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.total == 0 {
		return nil
	}
	for _, ns := range c.active() {
		list := make([]uint64, 0, 2*len(ns.bad))
		for _, e := range ns.bad {
			list = append(list, e.lba, e.n)
		}
		st = append(st, list)
	}
	return st
}

// possible says whether a state is one of this controller's.
func (u *uncorrectable) possible(c *Controller, st [][]uint64) bool {
	namespaces := c.active()
	if len(st) != 0 && len(st) != len(namespaces) {
		return false
	}
	total := 0
	for i, list := range st {
		if len(list)%2 != 0 {
			return false
		}
		total += len(list) / 2
		for next := uint64(0); len(list) > 0; list = list[2:] {
			lba, n := list[0], list[1]
			if n == 0 || lba < next || !namespaces[i].has(lba, n) {
				return false
			}
			next = lba + n + 1 // what is adjacent is one extent
		}
	}
	return total <= maxExtents+maxCouriers
}

// load takes over a state that is possible.
func (u *uncorrectable) load(c *Controller, st [][]uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, ns := range c.active() {
		u.total -= len(ns.bad)
		ns.bad = nil
		if i < len(st) {
			for list := st[i]; len(list) > 0; list = list[2:] {
				ns.bad = append(ns.bad, extent{list[0], list[1]})
			}
		}
		u.total += len(ns.bad)
		ns.cleanTo()
	}
}

// prepareMarked is the rest of prepare for blocks that are not all before the first
// unreadable one of the namespace.
func (c *Controller) prepareMarked(cmd *command, ns *namespace) (plan, spec.Status) {
	e, r := &cmd.entry, &cmd.request
	lba, n := e.LBA(), uint64(e.Blocks())
	length := ns.bytes(n)
	read, zeroes := e.Opcode == spec.NVMRead, e.Opcode == spec.NVMWriteZeroes
	switch {
	case !c.serves(ns):
		return 0, spec.InvalidNamespaceOrFormat | spec.StatusDNR
	case ns.refusal.Load() != 0:
		return 0, spec.Status(ns.refusal.Load())
	case ns.bars(c, e.Opcode):
		return 0, conflict
	case ns.formatting.Load():
		return 0, spec.FormatInProgress
	case !ns.has(lba, n):
		return 0, spec.LBAOutOfRange | spec.StatusDNR
	case ns.info.ReadOnly && !read:
		return 0, spec.NamespaceWriteProtected | spec.StatusDNR
	case !zeroes && ns.transferSize(e, n) > int64(c.cfg.MaxTransfer):
		return 0, spec.InvalidField | spec.StatusDNR
	}
	if st := ns.protection.admits(e); !st.OK() {
		return 0, st
	}
	bad, found := c.subsystem.uncorrectable.first(ns, lba, n)
	if found && read {
		cmd.failedAt(bad)
		return 0, spec.UnrecoveredRead | spec.StatusDNR
	}
	cmd.ns, r.Offset, r.Length = ns, ns.bytes(lba), length
	slow := found || ns.gate.shut.Load() || ns.protection.metadata > 0
	switch {
	case slow && zeroes:
		return planSlow, spec.Success
	case slow:
		return planRewrite, spec.Success
	case zeroes:
		return planSimple, spec.Success
	}
	return planData, spec.Success
}

// checkReadable fails a command that is about to read what cannot be read.
func (c *Controller) checkReadable(cmd *command) spec.Status {
	bad, found := c.subsystem.uncorrectable.first(cmd.ns, cmd.entry.LBA(), uint64(cmd.entry.Blocks()))
	if found {
		cmd.failedAt(bad)
		return spec.UnrecoveredRead | spec.StatusDNR
	}
	return spec.Success
}

// prepareWriteUncorrectable is Write Uncorrectable (NVM command set 1.0, 3.2.7).
func (c *Controller) prepareWriteUncorrectable(cmd *command) (plan, spec.Status) {
	if st := c.locate(cmd); !st.OK() {
		return 0, st
	}
	if cmd.ns.info.ReadOnly {
		return 0, spec.NamespaceWriteProtected | spec.StatusDNR
	}
	return planSlow, spec.Success
}

func (c *courier) writeUncorrectable(cmd *command) spec.Status {
	if st := c.pass(cmd); !st.OK() {
		return st
	}
	if !c.h.c.subsystem.uncorrectable.mark(cmd.ns, cmd.entry.LBA(), uint64(cmd.entry.Blocks())) {
		return spec.WriteFault
	}
	return spec.Success
}
