package virtio

import (
	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// putSplit writes a descriptor, if it is not there already: a line that was only read stays in the device's cache.
func (r *Ring) putSplit(i uint16, addr, meta uint64) {
	d := &r.desc[i]
	if d.addr != addr {
		d.addr = addr
	}
	if d.meta != meta {
		d.meta = meta
	}
}

// offer puts a chain into the available ring.
func (r *Ring) offer(head uint16) {
	if e := &r.avail[r.availIdx&(r.size-1)]; *e != head {
		*e = head
	}
	r.availIdx++
}

// addSplit makes a chain of descriptors of the table (2.7.5).
func (r *Ring) addSplit(head uint16, readable, writable []Segment) {
	at := head
	for i := range len(readable) + len(writable) {
		s, flags := segment(readable, writable, i)
		var next uint16
		if i < len(readable)+len(writable)-1 {
			flags |= spec.DescNext
			next = r.pop()
			r.next[at] = next
		}
		r.putSplit(at, s.Addr, splitMeta(s.Len, flags, next))
		at = next
	}
	r.offer(head)
}

// pushFollowers frees the n descriptors behind the head of a chain.
func (r *Ring) pushFollowers(head, n uint16) {
	for range n {
		head = r.next[head]
		r.push(head)
	}
}

func (r *Ring) publishSplit() (notify bool) {
	old := r.published
	r.published = r.availIdx
	// A full fence: the device is to see the index before its wish is loaded, or both could miss each other (2.7.13.3.1).
	dma.Store16(r.driver, spec.AvailIndex, r.availIdx)
	if r.eventIdx {
		event := dma.Load16(r.device, spec.AvailEventOffset(r.size))
		return spec.NeedEvent(event, r.availIdx, old)
	}
	return dma.Load16(r.device, spec.UsedFlags)&spec.UsedNoNotify == 0
}

func (r *Ring) reapSplit(done []Used) (n int, err error) {
	if r.inOrder {
		return r.reapSplitOrdered(done)
	}
	index := dma.Load16(r.device, spec.UsedIndex)
	if index == r.usedIdx {
		return 0, nil
	}
	if index-r.usedIdx > r.added-r.reaped {
		return 0, r.fail("index of the used ring jumps from %d to %d with %d chains under way", r.usedIdx, index, r.InFlight())
	}
	for n < len(done) && r.usedIdx != index {
		id, length := r.used[r.usedIdx&(r.size-1)].load()
		if err := r.check(id, length); err != nil {
			return n, err
		}
		r.finish(uint16(id), length, &done[n])
		r.usedIdx++
		n++
	}
	return n, nil
}

func (r *Ring) reapSplitOrdered(done []Used) (n int, err error) {
	n = r.reapBatch(done)
	index := dma.Load16(r.device, spec.UsedIndex)
	if index-r.usedIdx > r.added-r.reaped-r.batch {
		return n, r.fail("index of the used ring jumps from %d to %d with %d chains under way", r.usedIdx, index, r.InFlight())
	}
	for n < len(done) && r.usedIdx != index {
		id, length := r.used[r.usedIdx&(r.size-1)].load()
		if err := r.check(id, length); err != nil {
			return n, err
		}
		count := r.startBatch(uint16(id), length)
		if count > index-r.usedIdx {
			return n, r.fail("chain %d was used, of which the index of the used ring does not tell", id)
		}
		r.usedIdx += count
		n += r.reapBatch(done[n:])
	}
	return n, nil
}

func (r *Ring) splitPending() bool { return dma.Load16(r.device, spec.UsedIndex) != r.usedIdx }

func (r *Ring) enableSplitInterrupts() {
	if r.eventIdx {
		dma.Store16(r.driver, spec.UsedEventOffset(r.size), r.usedIdx)
	} else {
		dma.Store16(r.driver, spec.AvailFlags, 0)
	}
}

func (r *Ring) disableSplitInterrupts() {
	if r.eventIdx {
		// As far away as can be: the device passes it once in 65,536 chains, and flags mean nothing (2.7.7).
		dma.StoreRelease16(r.driver, spec.UsedEventOffset(r.size), r.usedIdx-1)
	} else {
		dma.StoreRelease16(r.driver, spec.AvailFlags, spec.AvailNoInterrupt)
	}
}
