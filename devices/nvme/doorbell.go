package nvme

import (
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
)

// Doorbells lie in the second page of BAR0, 4 bytes apart (CAP.DSTRD is 0).
const (
	doorbellOffset = spec.RegDoorbells
	doorbellStride = 4
)

// doorbellPage holds the doorbell registers as the host wrote them. Trapped writes
// are stored in it by the reactor; in mode Mmap it is a page of a memfd that the
// client maps and writes itself. Either way queues are polled here.
type doorbellPage struct {
	fd   int    // of the memfd, -1 without
	file []byte // the memfd mapped
	page []byte // pageSize bytes
}

func (d *doorbellPage) open(shared bool) error {
	d.fd = -1
	if !shared {
		d.page = make([]byte, pageSize)
		return nil
	}
	fd, mem, err := engine.SharedMemory("vfiouser-nvme-bar0", bar0Size)
	if err != nil {
		return err
	}
	d.fd, d.file, d.page = fd, mem, mem[doorbellOffset:][:pageSize]
	return nil
}

func (d *doorbellPage) close() error {
	if d.fd < 0 {
		return nil
	}
	return engine.ReleaseSharedMemory(d.fd, d.file)
}

func (d *doorbellPage) zero() {
	for off := 0; off < pageSize; off += doorbellStride {
		dma.Store32(d.page, off, 0)
	}
}

func (d *doorbellPage) load(off int) uint32 { return dma.Load32(d.page, off) }

func (d *doorbellPage) clear(off int) { dma.Store32(d.page, off, 0) }

func (d *doorbellPage) register(off int) []byte { return d.page[off : off+4 : off+4] }

// sqDoorbell and cqDoorbell are the offsets of a queue's doorbells in the page, and in
// the buffers of Doorbell Buffer Config.
func sqDoorbell(id uint16) int { return 2 * int(id) * doorbellStride }
func cqDoorbell(id uint16) int { return (2*int(id) + 1) * doorbellStride }

// ring is a trapped doorbell write, off bytes into the doorbells. Only the reactor
// calls it. What a register refuses leaves it as it was (Base 1.4, 5.2, Invalid
// Doorbell Write Value).
func (h *host) ring(off uint64, v uint32) {
	if !h.ready.Load() {
		return // undefined while the controller is not ready
	}
	n := int(off / doorbellStride)
	id, isCQ := n/2, n%2 == 1
	if id > h.c.cfg.Queues {
		h.raise(eventInvalidDoorbell, uint16(min(id, 0xffff)))
		return
	}
	if isCQ {
		h.ringCQ(uint16(id), v)
	} else {
		h.ringSQ(uint16(id), v)
	}
}

func (h *host) ringSQ(id uint16, v uint32) {
	q := h.sqs[id].Load()
	switch {
	case q == nil:
		h.raise(eventInvalidDoorbell, id)
		return
	case v >= q.size:
		h.raise(eventInvalidTail, id)
		return
	}
	dma.Store32(h.c.doorbells.page, sqDoorbell(id), v)
	if id == 0 {
		h.signal()
		return
	}
	q.cq.kick(q)
}

func (h *host) ringCQ(id uint16, v uint32) {
	q := h.cqs[id].Load()
	switch {
	case q == nil:
		h.raise(eventInvalidDoorbell, id)
		return
	case v >= q.size:
		h.raise(eventInvalidTail, id)
		return
	}
	dma.Store32(h.c.doorbells.page, cqDoorbell(id), v)
	if h.interrupts.pinBased() {
		h.interrupts.follow(q, false)
	}
	switch {
	case id == 0:
		h.signal()
	case q.blocked.Load():
		q.kick(nil)
	}
}

// kickAll makes every queue look at its memory, for instance because it has come back.
func (h *host) kickAll() {
	for i := range h.cqs {
		if q := h.cqs[i].Load(); q != nil && i > 0 {
			q.kick(nil)
		}
	}
	h.signal()
}
