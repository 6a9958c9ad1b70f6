package client

import (
	"context"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// keeper remembers what the server was told about interrupts, for Reattach. nil remembers nothing.
type keeper struct {
	path string
	opts []Option

	mu     sync.Mutex
	fds    map[keptIRQ]int // ours, one for each vector and action
	masked map[keptIRQ]bool

	restoring int   // calls of restore under way
	retired   []int // descriptors to close when they have ended
}

// keptIRQ is a vector, with an action if it has an eventfd for one.
type keptIRQ struct {
	index  codec.IRQIndex
	action codec.IRQSetFlags
	vector uint32
}

// maxKept bounds the range of vectors that is remembered: PCI has no more than 2,048.
const maxKept = 1 << 16

// duplicate makes descriptors of our own, all or none.
func duplicate(fds []int) ([]int, error) {
	own := make([]int, 0, len(fds))
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			reactor.CloseFDs(own)
			return nil, &SendError{err}
		}
		own = append(own, dup)
	}
	return own, nil
}

// note remembers a SET_IRQS that the server has accepted; own are duplicates of its descriptors.
func (p *keeper) note(set *codec.SetIRQs, own []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	action := set.Flags & codec.IRQSetActionBits
	switch {
	case set.Count > maxKept:
		reactor.CloseFDs(own)
	case set.Flags&codec.IRQSetDataEventfd != 0:
		for i := range set.Count {
			key := keptIRQ{set.Index, action, set.Start + i}
			p.forget(key)
			if int(i) < len(own) {
				p.fds[key] = own[i]
			}
		}
	case set.Count == 0:
		for key := range p.fds {
			if key.index == set.Index {
				p.forget(key)
			}
		}
		maps.DeleteFunc(p.masked, func(key keptIRQ, _ bool) bool { return key.index == set.Index })
	case action != codec.IRQSetActionTrigger:
		for i := range set.Count {
			if set.Flags&codec.IRQSetDataBool != 0 && (int(i) >= len(set.Data) || set.Data[i] == 0) {
				continue
			}
			key := keptIRQ{set.Index, 0, set.Start + i}
			if delete(p.masked, key); action == codec.IRQSetActionMask {
				p.masked[key] = true
			}
		}
	}
}

func (p *keeper) forget(key keptIRQ) {
	fd, ok := p.fds[key]
	if !ok {
		return
	}
	delete(p.fds, key)
	if p.restoring > 0 {
		p.retired = append(p.retired, fd)
		return
	}
	_ = unix.Close(fd)
}

func (p *keeper) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.fds {
		p.forget(key)
	}
}

// restore tells d all that is remembered now. What changes meanwhile it does not tell.
func (p *keeper) restore(ctx context.Context, d *Device) error {
	p.mu.Lock()
	p.restoring++
	kept, masked := maps.Clone(p.fds), maps.Clone(p.masked)
	p.mu.Unlock()
	defer p.restored()
	for _, run := range runs(maps.Keys(kept)) {
		fds := make([]int, len(run))
		for i, key := range run {
			fds[i] = kept[key]
		}
		if err := d.SetEventfds(ctx, run[0].index, int(run[0].vector), run[0].action, fds...); err != nil {
			return err
		}
	}
	for _, run := range runs(maps.Keys(masked)) {
		if err := d.MaskIRQ(ctx, run[0].index, int(run[0].vector), len(run)); err != nil {
			return err
		}
	}
	return nil
}

// restored closes what was forgotten while restore needed it.
func (p *keeper) restored() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.restoring--; p.restoring == 0 {
		reactor.CloseFDs(p.retired)
		p.retired = nil
	}
}

// runs groups vectors that follow each other.
func runs(keys func(yield func(keptIRQ) bool)) (groups [][]keptIRQ) {
	sorted := slices.SortedFunc(keys, func(a, b keptIRQ) int {
		switch {
		case a.index != b.index:
			return int(a.index) - int(b.index)
		case a.action != b.action:
			return int(a.action) - int(b.action)
		}
		return int(int64(a.vector) - int64(b.vector))
	})
	for i, key := range sorted {
		if i > 0 {
			next := sorted[i-1]
			if next.vector++; key == next {
				groups[len(groups)-1] = append(groups[len(groups)-1], key)
				continue
			}
		}
		groups = append(groups, []keptIRQ{key})
	}
	return groups
}

// indexes are those of which something is remembered, in ascending order.
func (p *keeper) indexes() []codec.IRQIndex {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []codec.IRQIndex
	for key := range p.fds {
		all = append(all, key.index)
	}
	for key := range p.masked {
		all = append(all, key.index)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
