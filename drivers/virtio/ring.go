package virtio

import (
	"fmt"

	"vfiouser/devices/virtio/spec"
)

// Segment is a piece of memory that the device is to read or to write.
type Segment struct {
	Addr uint64 // for the device
	Len  uint32 // bytes
}

// Used is a chain that the device has finished with.
type Used struct {
	Token uint32 // as given to Add
	Len   uint32 // bytes written by the device, from the start of the chain's writable segments on
}

// Ring is the driver's side of a virtqueue, split (VIRTIO 1.3, 2.7) or packed (2.8): chains of segments are added, made
// visible by Publish, and come back from Reap when the device has used them. It belongs to one goroutine and never blocks;
// nothing but the errors that end it is allocated.
//
// A device that breaks the rules gives an ErrDevice: the ring cannot be used any more then.
type Ring struct {
	packed, eventIdx, inOrder bool

	size     uint16
	segments int
	layout   layout
	iova     uint64
	mem      []byte // all of the ring's memory
	desc     []descriptor
	tables   []descriptor // indirect tables, `segments` for each entry; nil: none
	driver   []byte       // driver area
	device   []byte       // device area
	err      error        // sticky

	// chains are what is under way, by head (split) or buffer ID (packed). free holds the numbers that are not in use,
	// a ring of its own: the oldest is taken first, so that a device that keeps the order finds the
	// same buffers in the same entries round after round, and its cache need not load them again.
	chains   []chain
	free     []uint16
	freeHead uint16
	freeLen  uint16 // of free
	room     uint16 // descriptors that are not in use

	added  uint16 // chains added, modulo 2^16
	reaped uint16 // chains returned by Reap, modulo 2^16
	// A batch of a device that keeps the order: only its last chain is named (2.7.9, 2.8.9).
	batch    uint16 // chains left
	batchLen uint32 // bytes written to the last one

	// split
	avail               []uint16
	used                []usedElement
	next                []uint16 // the descriptor that follows in a chain without table
	availIdx, published uint16   // indices of the next chain, and of the first that is not visible
	usedIdx             uint16   // index of the next used element

	// packed
	addAt, useAt place  // where the next descriptor goes; where the next used one comes
	held         uint64 // the second half of the first descriptor added since the last Publish
	heldAt       uint16
	sinceAdd     uint16 // descriptors since the last Publish
	pending      bool   // chains were added since the last Publish
}

// chain is a chain under way.
type chain struct {
	token    uint32
	writable uint32 // bytes
	number   uint16 // how many were added before it, modulo 2^16
	n        uint16 // descriptors in the ring; 0: not under way
}

// descriptor is a descriptor of either layout, as two little-endian words in the host's order (amd64 and arm64 are
// little-endian). meta is length, flags and next (split), or length, buffer ID and flags (packed).
type descriptor struct{ addr, meta uint64 }

func splitMeta(length uint32, flags, next uint16) uint64 {
	return uint64(length) | uint64(flags)<<32 | uint64(next)<<48
}

func packedMeta(length uint32, id, flags uint16) uint64 {
	return uint64(length) | uint64(id)<<32 | uint64(flags)<<48
}

// place is a position in a packed ring.
type place struct {
	at   uint16
	wrap bool // the ring's wrap counter (2.8.1)
}

func (p *place) advance(n, size uint16) {
	if left := size - p.at; n >= left {
		p.at, p.wrap = n-left, !p.wrap
		return
	}
	p.at += n
}

// NewRing makes a ring in mem, which is zeroed, aligned to 64 bytes, and has the size that MemorySize tells. iova is the device's
// address of mem. No interrupts are asked for.
func NewRing(cfg RingConfig, mem []byte, iova uint64) (*Ring, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := cfg.layout()
	if uint64(len(mem)) < l.size || iova%line != 0 || !aligned(mem) {
		return nil, fmt.Errorf("%w: memory of %d bytes at %#x for a ring that takes %d", ErrInvalid, len(mem), iova, l.size)
	}
	r := &Ring{
		packed: cfg.Packed, eventIdx: cfg.EventIdx, inOrder: cfg.InOrder,
		size: cfg.Size, segments: cfg.Segments, layout: l, iova: iova, mem: mem[:l.size],
		desc:   descriptors(mem[:int(cfg.Size)*spec.DescSize]),
		driver: mem[l.driver:l.device], device: mem[l.device:l.tables],
		chains: make([]chain, cfg.Size), free: make([]uint16, cfg.Size), freeLen: cfg.Size, room: cfg.Size,
		addAt: place{wrap: true}, useAt: place{wrap: true},
	}
	for i := range r.free {
		r.free[i] = uint16(i)
	}
	if l.size > l.tables {
		r.tables = descriptors(mem[l.tables:l.size])
	}
	if !cfg.Packed {
		r.avail = words16(r.driver[spec.AvailRing:][:spec.AvailEntrySize*int(cfg.Size)])
		r.used = usedElements(r.device[spec.UsedRing:][:spec.UsedEntrySize*int(cfg.Size)])
		r.next = make([]uint16, cfg.Size)
	}
	r.DisableInterrupts()
	return r, nil
}

// Addresses are the device's addresses of the descriptor area, the driver area and the device area.
func (r *Ring) Addresses() (desc, driver, device uint64) {
	return r.iova, r.iova + r.layout.driver, r.iova + r.layout.device
}

// Size is the number of entries.
func (r *Ring) Size() int { return int(r.size) }

// Room is how many descriptors are free. A chain takes one if it has one segment or the ring has indirect tables, else one for
// each segment.
func (r *Ring) Room() int { return int(r.room) }

// InFlight is how many chains were added and not yet returned by Reap.
func (r *Ring) InFlight() int { return int(r.added - r.reaped) }

// Err is nil, or why the ring cannot be used any more.
func (r *Ring) Err() error { return r.err }

func (r *Ring) fail(format string, args ...any) error {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrDevice}, args...)...)
	}
	return r.err
}

// pop takes the number that has been free for longest; push frees one.
func (r *Ring) pop() uint16 {
	id := r.free[r.freeHead]
	if r.freeHead++; r.freeHead == r.size {
		r.freeHead = 0
	}
	r.freeLen--
	return id
}

func (r *Ring) push(id uint16) {
	r.free[r.behindFree()] = id
	r.freeLen++
}

// behindFree is the place in free behind the last free number.
func (r *Ring) behindFree() uint32 {
	at := uint32(r.freeHead) + uint32(r.freeLen)
	if at >= uint32(r.size) {
		at -= uint32(r.size)
	}
	return at
}

// begin gives the number for a chain that takes n descriptors.
func (r *Ring) begin(token uint32, writable uint32, n uint16) uint16 {
	id := r.pop()
	r.room -= n
	r.chains[id] = chain{token: token, writable: writable, number: r.added, n: n}
	r.added++
	r.pending = true
	return id
}

// finish ends a chain of which the device says that it has written length bytes.
func (r *Ring) finish(id uint16, length uint32, done *Used) {
	c := &r.chains[id]
	*done = Used{Token: c.token, Len: length}
	r.push(id)
	if c.n > 1 && !r.packed {
		r.pushFollowers(id, c.n-1)
	}
	r.room += c.n
	c.n = 0
	r.reaped++
}

// AddReadable adds a chain of one segment that the device reads. Token comes back with the chain. ErrFull if there is no room.
func (r *Ring) AddReadable(token uint32, addr uint64, length uint32) error {
	return r.addOne(token, addr, length, 0, 0)
}

// AddWritable adds a chain of one segment that the device writes. See AddReadable.
func (r *Ring) AddWritable(token uint32, addr uint64, length uint32) error {
	return r.addOne(token, addr, length, length, spec.DescWrite)
}

func (r *Ring) addOne(token uint32, addr uint64, length, writable uint32, flags uint16) error {
	if r.room == 0 || r.err != nil {
		return r.refuse()
	}
	id := r.begin(token, writable, 1)
	if r.packed {
		r.putPacked(addr, length, id, flags)
	} else {
		r.putSplit(id, addr, splitMeta(length, flags, 0))
		r.offer(id)
	}
	return nil
}

func (r *Ring) refuse() error {
	if r.err != nil {
		return r.err
	}
	return ErrFull
}

// Add adds a chain: the device reads the readable segments and writes the writable ones, both in order. Errors: ErrFull if
// there is no room, ErrInvalid if the chain has no segment or more than the ring allows.
func (r *Ring) Add(token uint32, readable, writable []Segment) error {
	n := len(readable) + len(writable)
	if r.err != nil {
		return r.err
	}
	if n == 0 || n > r.segments || r.tables == nil && n > int(r.size) {
		return fmt.Errorf("%w: chain of %d segments, at most %d", ErrInvalid, n, r.segments)
	}
	var length uint64
	for i := range writable {
		length += uint64(writable[i].Len)
	}
	if length > 1<<32-1 {
		return fmt.Errorf("%w: chain of %d bytes", ErrInvalid, length)
	}
	indirect := n > 1 && r.tables != nil
	entries := uint16(n)
	if indirect {
		entries = 1
	}
	if r.room < entries {
		return ErrFull
	}
	id := r.begin(token, uint32(length), entries)
	switch {
	case indirect:
		r.addIndirect(id, readable, writable)
	case r.packed:
		r.addPacked(id, readable, writable)
	default:
		r.addSplit(id, readable, writable)
	}
	return nil
}

// addIndirect fills the entry's table (2.7.5.3, 2.8.8).
func (r *Ring) addIndirect(id uint16, readable, writable []Segment) {
	first := int(id) * r.segments
	n := len(readable) + len(writable)
	for i := range n {
		s, flags := segment(readable, writable, i)
		d := &r.tables[first+i]
		d.addr = s.Addr
		if r.packed {
			d.meta = packedMeta(s.Len, 0, flags)
			continue
		}
		if i < n-1 {
			flags |= spec.DescNext
		}
		d.meta = splitMeta(s.Len, flags, uint16(i+1))
	}
	addr := r.iova + r.layout.tables + uint64(first)*spec.DescSize
	length := uint32(n * spec.DescSize)
	if r.packed {
		r.putPacked(addr, length, id, spec.DescIndirect)
	} else {
		r.putSplit(id, addr, splitMeta(length, spec.DescIndirect, 0))
		r.offer(id)
	}
}

// segment is segment i of a chain, and the flag for its direction.
func segment(readable, writable []Segment, i int) (Segment, uint16) {
	if i < len(readable) {
		return readable[i], 0
	}
	return writable[i-len(readable)], spec.DescWrite
}

// Publish makes what was added visible to the device and says whether the device wants a notification.
func (r *Ring) Publish() (notify bool) {
	if !r.pending || r.err != nil {
		return false
	}
	r.pending = false
	if r.packed {
		return r.publishPacked()
	}
	return r.publishSplit()
}

// EnableInterrupts asks for an interrupt with the next chain that is used, and says whether there is one already: then no
// interrupt may come.
func (r *Ring) EnableInterrupts() (pending bool) {
	if r.packed {
		r.enablePackedInterrupts()
		return r.batch > 0 || r.packedPending()
	}
	r.enableSplitInterrupts()
	return r.batch > 0 || r.splitPending()
}

// DisableInterrupts says that no interrupts are needed. Some may come nevertheless.
func (r *Ring) DisableInterrupts() {
	if r.packed {
		r.disablePackedInterrupts()
	} else {
		r.disableSplitInterrupts()
	}
}

// Reap takes chains that the device has used, as many as there are and done has room for. The order is the device's. An error
// is an ErrDevice and for good.
func (r *Ring) Reap(done []Used) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.packed {
		return r.reapPacked(done)
	}
	return r.reapSplit(done)
}

// check finds out whether the device may say that it has written length bytes to chain id.
func (r *Ring) check(id, length uint32) error {
	if id >= uint32(r.size) || r.chains[id].n == 0 {
		return r.fail("chain %d was used, which is not under way", id)
	}
	if writable := r.chains[id].writable; length > writable {
		return r.fail("%d bytes written to chain %d, which has room for %d", length, id, writable)
	}
	return nil
}

// startBatch begins a batch that ends with chain id and returns how many chains it has.
func (r *Ring) startBatch(id uint16, length uint32) uint16 {
	r.batch, r.batchLen = r.chains[id].number-r.reaped+1, length
	return r.batch
}

// reapBatch takes chains of a batch: those before the last one count as used entirely (2.7.9, 2.8.9).
func (r *Ring) reapBatch(done []Used) (n int) {
	for n < len(done) && r.batch > 0 {
		r.batch--
		// Numbers that come back in order are free again in order, so what lies behind the free ones is still the
		// oldest that was taken.
		id := r.free[r.behindFree()]
		length := r.chains[id].writable
		if r.batch == 0 {
			length = r.batchLen
		}
		r.finish(id, length, &done[n])
		n++
	}
	return n
}

// nextPlace is where the next chain will be made available, as NOTIFICATION_DATA wants it (2.9, 4.1.5.2).
func (r *Ring) nextPlace() uint16 {
	if r.packed {
		return spec.Position(r.addAt.at, r.addAt.wrap)
	}
	return r.availIdx
}
