package virtio

import (
	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// putPacked writes the next descriptor (2.8.6). The first one since the last Publish is held back: the device sees none of those
// behind it before that one is there.
func (r *Ring) putPacked(addr uint64, length uint32, id, flags uint16) {
	d, meta := &r.desc[r.addAt.at], packedMeta(length, id, flags|spec.PackedAvail(r.addAt.wrap))
	if d.addr != addr {
		d.addr = addr
	}
	if r.sinceAdd == 0 {
		r.held, r.heldAt = meta, r.addAt.at
	} else {
		d.meta = meta
	}
	r.sinceAdd++
	if r.addAt.at++; r.addAt.at == r.size {
		r.addAt = place{wrap: !r.addAt.wrap}
	}
}

// addPacked makes a chain of descriptors in the ring (2.8.7).
func (r *Ring) addPacked(id uint16, readable, writable []Segment) {
	for i := range len(readable) + len(writable) {
		s, flags := segment(readable, writable, i)
		if i < len(readable)+len(writable)-1 {
			flags |= spec.DescNext
		}
		r.putPacked(s.Addr, s.Len, id, flags)
	}
}

func (r *Ring) publishPacked() (notify bool) {
	n := r.sinceAdd
	r.sinceAdd = 0
	// A full fence: the device is to see the descriptor before its wish is loaded, or both could miss each other (2.8.21).
	dma.Store64(r.mem, int(r.heldAt)*spec.DescSize+8, r.held)
	at, flags := spec.EventParts(dma.Load32(r.device, 0))
	if flags != spec.EventDesc {
		return flags == spec.EventEnable
	}
	event, wrap := spec.PositionParts(at)
	if wrap != r.addAt.wrap {
		event -= r.size
	}
	return spec.NeedEvent(event, r.addAt.at, r.addAt.at-n)
}

func (r *Ring) reapPacked(done []Used) (n int, err error) {
	n = r.reapBatch(done)
	for n < len(done) {
		meta, ok := r.usedMeta()
		if !ok {
			return n, nil
		}
		id := meta >> 32 & 0xffff
		if err := r.check(uint32(id), r.writtenLength(meta)); err != nil {
			return n, err
		}
		if !r.inOrder {
			r.useAt.advance(r.chains[id].n, r.size)
			r.finish(uint16(id), r.writtenLength(meta), &done[n])
			n++
			continue
		}
		r.startBatch(uint16(id), r.writtenLength(meta))
		for i, k := r.behindFree(), r.batch; k > 0; k-- {
			r.useAt.advance(r.chains[r.free[i]].n, r.size)
			if i++; i == uint32(r.size) {
				i = 0
			}
		}
		n += r.reapBatch(done[n:])
	}
	return n, nil
}

// usedMeta is the second half of the next used descriptor, if there is one. One load takes all of it, flags included.
func (r *Ring) usedMeta() (meta uint64, ok bool) {
	meta = dma.Load64(r.mem, int(r.useAt.at)*spec.DescSize+8)
	return meta, uint16(meta>>48)&(spec.DescAvail|spec.DescUsed) == spec.PackedUsed(r.useAt.wrap)
}

// writtenLength is the length in a used descriptor, which means something only if the device says that it has written (2.8.4).
func (r *Ring) writtenLength(meta uint64) uint32 {
	if meta>>48&spec.DescWrite == 0 {
		return 0
	}
	return uint32(meta)
}

func (r *Ring) packedPending() bool {
	_, ok := r.usedMeta()
	return ok
}

func (r *Ring) enablePackedInterrupts() {
	if r.eventIdx {
		dma.Store32(r.driver, 0, spec.EventWord(spec.Position(r.useAt.at, r.useAt.wrap), spec.EventDesc))
	} else {
		dma.Store32(r.driver, 0, spec.EventWord(0, spec.EventEnable))
	}
}

func (r *Ring) disablePackedInterrupts() {
	dma.StoreRelease32(r.driver, 0, spec.EventWord(0, spec.EventDisable))
}
