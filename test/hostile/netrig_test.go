package hostile

import (
	"encoding/binary"

	"vfiouser/codec"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
)

// Where the structures of a card lie in BAR0.
const (
	netCommon = 0x0000
	netDevice = 0x2000
	netNotify = 0x3000
	netBAR    = 0x4000
)

// Numbers of the victim's queues.
const (
	rxQueue = 0
	txQueue = 1
)

// netRig drives the victim's card from an attacker's connection. It does what it is told
// and checks nothing of it.
type netRig struct {
	*raw
	ram      *ram
	features uint64
	rings    []*vring // by number; nil: not set up
	data     uint64   // offset of dataSize bytes for buffers
}

const dataSize = 1 << 20

// Features of the attackers, beside VERSION_1.
const (
	splitRings  = ring.FeatureVersion1
	packedRings = ring.FeatureVersion1 | ring.FeatureRingPacked
	// netFeatures: all commands, buffers that are merged, everything left to the card.
	netFeatures = spec.FeatureMrgRxBuf | spec.FeatureCtrlVQ | spec.FeatureCtrlRx | spec.FeatureCtrlRxExtra | spec.FeatureCtrlVLAN |
		spec.FeatureCtrlMACAddr | spec.FeatureGuestAnnounce | spec.FeatureNotfCoal | spec.FeatureVQNotfCoal |
		spec.FeatureMQ | spec.FeatureRSS | spec.FeatureHashReport | spec.FeatureCtrlGuestOffloads |
		spec.FeatureCSUM | spec.FeatureHostTSO4 | spec.FeatureHostTSO6 | spec.FeatureHostECN | spec.FeatureHostUSO |
		ring.FeatureIndirectDesc | ring.FeatureRingReset
)

// layouts are those of rings.
var layouts = []struct {
	name     string
	features uint64
}{{"split", splitRings}, {"packed", packedRings}}

// newNetRig connects and shares memory of the given size.
func (a *attack) newNetRig(size uint64) *netRig {
	a.Helper()
	g := &netRig{raw: a.session(), ram: a.newRAM(size)}
	g.call(codec.CmdDMAMap, mapping(ramBase, size, 0, readWrite), g.ram.fd)
	g.data = g.ram.alloc(dataSize)
	return g
}

// netStarted is a rig whose card is up, with queues of the given size.
func (a *attack) netStarted(features uint64, entries uint16) *netRig {
	a.Helper()
	g := a.newNetRig(16 << 20)
	g.start(features, entries)
	return g
}

// start brings the card up with all its queues.
func (g *netRig) start(features uint64, entries uint16) {
	g.a.Helper()
	g.agree(features)
	for i := range g.queues() {
		g.ring(i, entries).enable()
	}
	g.drive()
}

// queues is how many queues there are with the features.
func (g *netRig) queues() int {
	n := 2
	if g.features&(spec.FeatureMQ|spec.FeatureRSS) != 0 {
		n = 2 * victimPairs
	}
	if g.features&spec.FeatureCtrlVQ != 0 {
		n++
	}
	return n
}

// control is the control queue.
func (g *netRig) control() *vring { return g.rings[g.queues()-1] }

// agree goes on from a reset to FEATURES_OK.
func (g *netRig) agree(features uint64) {
	g.a.Helper()
	g.features, g.rings = features, make([]*vring, 2*victimPairs+1)
	g.status(ring.StatusAcknowledge | ring.StatusDriver)
	for word := range uint64(2) {
		g.set(ring.DriverFeatureSelect, 4, word)
		g.set(ring.DriverFeature, 4, features>>(32*word)&(1<<32-1))
	}
	g.status(ring.StatusAcknowledge | ring.StatusDriver | ring.StatusFeaturesOK)
	if s := g.readStatus(); !s.Has(ring.StatusFeaturesOK) {
		g.a.Fatalf("the features %#x are refused: %v", features, s)
	}
}

// drive is DRIVER_OK.
func (g *netRig) drive() {
	g.a.Helper()
	g.status(ring.StatusAcknowledge | ring.StatusDriver | ring.StatusFeaturesOK | ring.StatusDriverOK)
}

// reset resets the card.
func (g *netRig) reset() {
	g.a.Helper()
	g.status(0)
	g.until("the card is reset", func() bool { return g.readStatus() == 0 })
}

// set writes a register of the common configuration.
func (g *netRig) set(off uint64, size int, v uint64) {
	g.a.Helper()
	g.post(codec.CmdRegionWrite, access(0, netCommon+off, binary.LittleEndian.AppendUint64(nil, v)[:size]))
}

func (g *netRig) status(s ring.Status) { g.a.Helper(); g.set(ring.DeviceStatus, 1, uint64(s)) }

func (g *netRig) readStatus() ring.Status {
	g.a.Helper()
	return ring.Status(g.readRegion(0, netCommon+ring.DeviceStatus, 1)[0])
}

// broken waits until the card asks for a reset.
func (g *netRig) broken() {
	g.a.Helper()
	g.until("the card needs a reset", func() bool { return g.readStatus().Has(ring.StatusNeedsReset) })
}

// works checks that the card of this session sends, after a reset if it is down.
func (g *netRig) works() {
	g.a.Helper()
	if g.readStatus() != ring.StatusAcknowledge|ring.StatusDriver|ring.StatusFeaturesOK|ring.StatusDriverOK {
		g.reset()
		g.ram.used = g.data + dataSize
		g.start(g.features, 64)
	}
	q := g.rings[txQueue]
	q.put(g.frame(foreign(64)))
	q.kick()
	q.until(1)
}

// vring is the attacker's side of a virtqueue.
type vring struct {
	g                    *netRig
	index                int
	size                 uint16
	desc, driver, device uint64 // offsets

	next  uint16 // descriptor
	wrap  bool   // packed: the driver's wrap counter
	avail uint16 // split: the index

	returned uint16 // split: the index as far as it was seen; packed: the place
	round    bool   // packed: the device's wrap counter there
	lens     map[uint16]uint16
}

// ring makes the memory of a queue and tells the card.
func (g *netRig) ring(index int, entries uint16) *vring {
	g.a.Helper()
	q := &vring{g: g, index: index, size: entries,
		desc: g.ram.alloc(ring.DescBytes(entries)), driver: g.ram.alloc(ring.AvailBytes(entries)), device: g.ram.alloc(ring.UsedBytes(entries))}
	q.begin()
	q.place(ramBase+q.desc, ramBase+q.driver, ramBase+q.device)
	g.rings[index] = q
	return q
}

// begin empties the queue.
func (q *vring) begin() {
	q.g.a.Helper()
	q.next, q.avail, q.returned, q.wrap, q.round, q.lens = 0, 0, 0, true, true, map[uint16]uint16{}
	q.g.ram.write(q.desc, make([]byte, ring.DescBytes(q.size)))
	q.g.ram.write(q.driver, make([]byte, ring.AvailBytes(q.size)))
	q.g.ram.write(q.device, make([]byte, ring.UsedBytes(q.size)))
}

// place writes the addresses of the queue.
func (q *vring) place(desc, driver, device uint64) {
	q.g.a.Helper()
	q.g.set(ring.QueueSelect, 2, uint64(q.index))
	q.g.set(ring.QueueSize, 2, uint64(q.size))
	q.g.set(ring.QueueDesc, 8, desc)
	q.g.set(ring.QueueDriver, 8, driver)
	q.g.set(ring.QueueDevice, 8, device)
	q.g.set(ring.QueueMSIXVector, 2, uint64(q.index+1))
}

func (q *vring) enable() {
	q.g.a.Helper()
	q.g.set(ring.QueueSelect, 2, uint64(q.index))
	q.g.set(ring.QueueEnable, 2, 1)
}

// restart resets the queue and enables it again, empty.
func (q *vring) restart() {
	q.g.a.Helper()
	q.g.set(ring.QueueSelect, 2, uint64(q.index))
	q.g.set(ring.QueueReset, 2, 1)
	q.g.until("the queue is reset", func() bool {
		return binary.LittleEndian.Uint16(q.g.readRegion(0, netCommon+ring.QueueReset, 2)) == 0
	})
	q.begin()
	q.enable()
}

func (q *vring) packed() bool { return q.g.features&ring.FeatureRingPacked != 0 }

// kick notifies the card, by message: of a mapped page that does nothing but to have it
// looked at.
func (q *vring) kick() {
	q.g.a.Helper()
	q.g.post(codec.CmdRegionWrite, access(0, netNotify+4*uint64(q.index), binary.LittleEndian.AppendUint16(nil, uint16(q.index))))
}

// buf is a buffer of a chain.
type buf struct {
	addr  uint64
	n     uint32
	flags uint16 // beside DescNext where another one follows
}

// bytes are descriptors as they stand in a ring, or in a table.
func (q *vring) bytes(first, id uint16, list []buf, table bool) (b []byte) {
	wrap := q.wrap
	for i, d := range list {
		if i < len(list)-1 {
			d.flags |= ring.DescNext
		}
		at := first + uint16(i)
		if !table && at >= q.size {
			at -= q.size
			wrap = !q.wrap
		}
		var e [ring.DescSize]byte
		switch {
		case !q.packed():
			next := at + 1
			if !table && next == q.size {
				next = 0
			}
			(&ring.Desc{Addr: d.addr, Len: d.n, Flags: d.flags, Next: next}).Put(e[:])
		case table:
			(&ring.PackedDesc{Addr: d.addr, Len: d.n, ID: id, Flags: d.flags}).Put(e[:])
		default:
			(&ring.PackedDesc{Addr: d.addr, Len: d.n, ID: id, Flags: d.flags | ring.PackedAvail(wrap)}).Put(e[:])
		}
		b = append(b, e[:]...)
	}
	return b
}

// put makes a chain available.
func (q *vring) put(list ...buf) {
	q.g.a.Helper()
	n, head := uint16(len(list)), q.next
	b := q.bytes(head, head, list, false)
	first := min(len(b), int(q.size-head)*ring.DescSize)
	q.g.ram.write(q.desc, b[first:])
	if q.packed() {
		// The first descriptor last, and of it the flags.
		q.g.ram.write(q.desc+ring.DescBytes(head+1), b[ring.DescSize:max(first, ring.DescSize)])
		q.g.ram.write(q.desc+ring.DescBytes(head), b[:8])
		q.g.ram.write(q.desc+ring.DescBytes(head)+8, b[8:ring.DescSize])
	} else {
		q.g.ram.write(q.desc+ring.DescBytes(head), b[:first])
		q.offer(head)
	}
	q.lens[head] = n
	if q.next += n; q.next >= q.size {
		q.next -= q.size
		q.wrap = !q.wrap
	}
}

// offer puts a head into the available ring of a split queue.
func (q *vring) offer(head uint16) {
	q.g.a.Helper()
	q.g.ram.write16(q.driver+ring.AvailRing+ring.AvailEntrySize*uint64(q.avail%q.size), head)
	q.avail++
	q.g.ram.write16(q.driver+ring.AvailIndex, q.avail)
}

// table makes an indirect table at an offset and gives the descriptor that refers to it.
func (q *vring) table(off uint64, list ...buf) buf {
	q.g.a.Helper()
	q.g.ram.write(off, q.bytes(0, 0, list, true))
	return buf{ramBase + off, uint32(len(list) * ring.DescSize), ring.DescIndirect}
}

// used is how many chains the card has returned since the last call.
func (q *vring) used() (n int) {
	q.g.a.Helper()
	if !q.packed() {
		var b [2]byte
		q.g.ram.read(q.device+ring.UsedIndex, b[:])
		index := binary.LittleEndian.Uint16(b[:])
		n = int(index - q.returned)
		q.returned = index
		return n
	}
	for ; ; n++ {
		var e [ring.DescSize]byte
		q.g.ram.read(q.desc+ring.DescBytes(q.returned), e[:])
		var d ring.PackedDesc
		d.Get(e[:])
		if d.Flags&(ring.DescAvail|ring.DescUsed) != ring.PackedUsed(q.round) || q.lens[d.ID] == 0 {
			return n
		}
		if q.returned += q.lens[d.ID]; q.returned >= q.size {
			q.returned -= q.size
			q.round = !q.round
		}
	}
}

// until waits until so many chains have come back.
func (q *vring) until(n int) {
	q.g.a.Helper()
	q.g.until("chains come back", func() bool { n -= q.used(); return n <= 0 })
}

// header is the size of what stands before a frame.
func (g *netRig) header() int {
	if g.features&spec.FeatureHashReport != 0 {
		return spec.HeaderSizeHash
	}
	return spec.HeaderSize
}

// foreign is a frame of the attacker's, to everybody.
func foreign(size int) []byte {
	f := append(append([]byte(nil), broadcastMAC[:]...), victimMAC[:]...)
	f = append(f, 0x88, 0xb6)
	return append(f, make([]byte, max(size-len(f), 0))...)[:size]
}

// frame writes a frame, with an empty header, to the beginning of the data.
func (g *netRig) frame(f []byte) buf {
	g.a.Helper()
	return g.frameAt(g.data, make([]byte, g.header()), f)
}

func (g *netRig) frameAt(off uint64, header, f []byte) buf {
	g.a.Helper()
	b := append(append([]byte(nil), header...), f...)
	g.ram.write(off, b)
	return buf{ramBase + off, uint32(len(b)), 0}
}

// receives gives n receive buffers of 2 KiB each.
func (g *netRig) receives(n int) {
	g.a.Helper()
	q := g.rings[rxQueue]
	for i := range uint64(n) {
		q.put(buf{ramBase + g.data + dataSize/2 + i*2048%(dataSize/2), 2048, ring.DescWrite})
	}
	q.kick()
}
