package dma

import (
	"sync/atomic"

	"vfiouser/codec"
)

// Prot says what a device may do with a region: the flags of DMA_MAP that are about it.
type Prot = codec.DMAFlags

// Protection bits.
const (
	ProtRead  = codec.DMAFlagRead
	ProtWrite = codec.DMAFlagWrite
)

// Mapping is what a client asks for with VFIO_USER_DMA_MAP.
type Mapping struct {
	IOVA, Size uint64 // bytes; multiples of the table's page size
	Prot       Prot
	FD         int    // -1: reached by message only
	Offset     uint64 // of the region in the file, bytes
}

// Region describes one mapped region to a device.
type Region struct {
	IOVA, Size uint64
	Prot       Prot
	Offset     uint64 // in the client's file, bytes
	// Local is the memory itself, nil if it is reached by message only. It may be
	// touched only inside a read section, or while it is pinned.
	Local []byte
}

// region is immutable but for its pins.
type region struct {
	t          *Table
	iova, size uint64
	offset     uint64
	prot       Prot
	mem        []byte   // exactly size bytes; nil: by message only
	file       *mapping // what mem is a part of; nil: by message only

	// pins counts asynchronous users. Once no reader can reach the region any more
	// draining is added; whoever then brings the word to exactly draining, and
	// that happens once, releases the region.
	pins  atomic.Int64
	owner *retirement // written before draining is added
}

const draining = 1 << 62

func (r *region) last() uint64 { return r.iova + r.size - 1 }

// holds tells whether [iova, iova+n) lies in the region; it cannot overflow.
func (r *region) holds(iova, n uint64) bool {
	off := iova - r.iova
	return off < r.size && n <= r.size-off
}

func (r *region) public() Region {
	return Region{IOVA: r.iova, Size: r.size, Prot: r.prot, Offset: r.offset, Local: r.mem}
}

// Pin keeps a region's memory mapped after the read section in which it was taken.
// The zero Pin holds nothing.
type Pin struct {
	r       *region
	iova, n uint64 // what may be written; n is 0 if it is pinned for reading
}

// Release gives the pin back, from any goroutine, after the last access. What was
// pinned for writing is logged as written. A Pin is released once; the
// release of one pin twice panics when it is noticed.
func (p Pin) Release() {
	if p.r == nil {
		return
	}
	logged := p.mark()
	n := p.r.pins.Add(-1)
	if !logged {
		// Logging may have started since. If it has not now, it starts after the write.
		p.mark()
	}
	switch {
	case n == draining:
		p.r.owner.release(p.r)
	case n < 0:
		panic("dma: pin released twice")
	}
}
