package hostile

import (
	"encoding/binary"
	"fmt"
	"testing"

	"vfiouser/codec"
	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
)

// Where there is memory that cannot be written, and some that cannot be read.
const (
	readOnlyBase  = 2 << 40
	writeOnlyBase = 3 << 40
	otherSize     = 1 << 20
)

// mapOthers maps them.
func (g *netRig) mapOthers() {
	g.a.Helper()
	g.call(codec.CmdDMAMap, mapping(readOnlyBase, otherSize, 0, codec.DMAFlagRead), g.a.newRAM(otherSize).fd)
	g.call(codec.CmdDMAMap, mapping(writeOnlyBase, otherSize, 0, codec.DMAFlagWrite), g.a.newRAM(otherSize).fd)
}

// Rings that the card must not believe, because of where they are or how large.
func TestVirtioNetRings(t *testing.T) {
	l := newNetLab(t, virtionet.Config{QueueSize: 256})
	for _, layout := range layouts {
		for queue, name := range []string{"receive", "transmit"} {
			for _, c := range []struct {
				name  string
				place func(q *vring)
				fails bool // the card needs a reset then
			}{
				{"all in one place", func(q *vring) { q.place(ramBase+q.desc, ramBase+q.desc, ramBase+q.desc) }, false},
				{"at address 0", func(q *vring) { q.place(0, 0, 0) }, false},
				{"nowhere", func(q *vring) { q.place(nowhere, nowhere, nowhere) }, false},
				{"at the end of the address space", func(q *vring) { q.place(lastPage, lastPage, lastPage) }, false},
				{"past the end of the address space", func(q *vring) { q.place(1<<64-16, 1<<64-16, 1<<64-16) }, true},
				{"not aligned", func(q *vring) { q.place(ramBase+q.desc+8, ramBase+q.driver+1, ramBase+q.device+2) }, true},
				{"across the end of the memory", func(q *vring) {
					end := ramBase + q.g.ram.size - 16
					q.place(end, end, end)
				}, false},
				{"descriptors nowhere", func(q *vring) { q.place(nowhere, ramBase+q.driver, ramBase+q.device) }, false},
				{"device area nowhere", func(q *vring) { q.place(ramBase+q.desc, ramBase+q.driver, nowhere) }, false},
				{"device area in memory that is read-only", func(q *vring) { q.place(ramBase+q.desc, ramBase+q.driver, readOnlyBase) }, true},
				{"all of it in memory that is read-only", func(q *vring) { q.place(readOnlyBase, readOnlyBase, readOnlyBase) }, true},
				{"driver area in memory that is write-only", func(q *vring) { q.place(ramBase+q.desc, writeOnlyBase, ramBase+q.device) }, true},
				{"the memory of another ring", func(q *vring) {
					o := q.g.rings[1-q.index]
					q.place(ramBase+o.desc, ramBase+o.driver, ramBase+o.device)
				}, false},
				{"in the data that goes over it", func(q *vring) {
					at := ramBase + q.g.data + dataSize/2
					q.place(at, at+4096, at+8192)
				}, false},
			} {
				l.attack(t, layout.name+", "+name+", "+c.name, func(a *attack) {
					g := a.newNetRig(16 << 20)
					g.mapOthers()
					g.agree(layout.features | netFeatures)
					for i := range g.queues() {
						g.ring(i, 64)
					}
					c.place(g.rings[queue])
					for i := range g.queues() {
						g.rings[i].enable()
					}
					g.drive()
					g.receives(32)
					g.rings[txQueue].put(g.frame(foreign(100)))
					g.rings[txQueue].kick()
					l.healthy.goesOn(a.T, l.healthy.mark())
					if c.fails {
						g.broken()
					}
					g.reset()
					g.works()
				})
			}
		}
		for _, size := range []uint16{0, 3, 257, 512, 0x8000, 0xffff} {
			l.attack(t, layout.name+fmt.Sprintf(", of %d entries", size), func(a *attack) {
				g := a.newNetRig(16 << 20)
				g.agree(layout.features | netFeatures)
				g.ring(rxQueue, 64)
				q := g.ring(txQueue, 256)
				g.set(ring.QueueSelect, 2, txQueue)
				g.set(ring.QueueSize, 2, uint64(size))
				if got := binary.LittleEndian.Uint16(g.readRegion(0, netCommon+ring.QueueSize, 2)); got == size && (size > 256 || size == 0 || layout.name == "split") {
					a.Errorf("the card takes %d entries", got)
				} else {
					q.size = got
				}
				g.rings[rxQueue].enable()
				q.enable()
				g.drive()
				g.works()
			})
		}
	}
}
