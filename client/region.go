package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

const (
	// firstArgsz has room for the areas of any usual region, so that one question is enough.
	firstArgsz = 1024
	maxArgsz   = maxControlReply
)

// The indexes of a PCI device's regions.
const (
	RegionBAR0   = codec.RegionBAR0
	RegionBAR1   = codec.RegionBAR1
	RegionBAR2   = codec.RegionBAR2
	RegionBAR3   = codec.RegionBAR3
	RegionBAR4   = codec.RegionBAR4
	RegionBAR5   = codec.RegionBAR5
	RegionROM    = codec.RegionROM
	RegionConfig = codec.RegionConfig
	RegionVGA    = codec.RegionVGA
	NumRegions   = codec.NumRegions
)

// Area is a part of a region: an offset from its start and a size, both in bytes.
type Area = codec.Area

// Region is a region of a device: what GET_REGION_INFO tells, and the descriptors that came with it.
type Region struct {
	Index int
	Flags codec.RegionFlags
	Size  uint64 // bytes; 0: the device does not have it
	// Areas are the parts that can be mmapped; the whole region is one area if the server did not say.
	Areas []Area
	// Type says what a region beyond RegionVGA is; the zero value: the server does not.
	Type codec.RegionType

	device *Device
	offset uint64
	mu     sync.Mutex
	fds    []int // one for each area, or one for all
}

// Region asks for a region. Close it to release its descriptors; what was mapped stays mapped.
func (d *Device) Region(ctx context.Context, index int) (*Region, error) {
	if index < 0 || uint64(index) >= uint64(d.info.NumRegions) {
		return nil, invalid("region %d of %d", index, d.info.NumRegions)
	}
	argsz := uint32(firstArgsz)
	for range 2 {
		r, needed, err := d.askRegion(ctx, index, argsz)
		if err != nil || r != nil {
			return r, err
		}
		argsz = needed
	}
	return nil, d.breakOff(codec.CmdGetRegionInfo, nil, "region %d: what the server needs keeps growing", index)
}

// askRegion asks with room for argsz bytes. If that was too little, the region is nil and needed tells how much it takes.
func (d *Device) askRegion(ctx context.Context, index int, argsz uint32) (r *Region, needed uint32, err error) {
	k, err := d.conn.begin(ctx, codec.CmdGetRegionInfo)
	if err != nil {
		return nil, 0, err
	}
	ask := codec.RegionInfo{ArgSz: argsz, Index: uint32(index)}
	answer := make([]byte, argsz)
	k.expect(0, answer)
	if err := d.conn.request(ctx, k, ask.AppendRequest(k.payload())); err != nil {
		return nil, 0, err
	}
	defer d.conn.release(k)
	var info codec.RegionInfo
	if err := info.DecodeReply(answer[:k.n]); err != nil {
		return nil, 0, d.breakOff(codec.CmdGetRegionInfo, err, "region %d", index)
	}
	if info.Index != uint32(index) {
		return nil, 0, d.breakOff(codec.CmdGetRegionInfo, nil, "reply for region %d instead of %d", info.Index, index)
	}
	if info.Truncated(k.n) {
		if info.ArgSz <= argsz || info.ArgSz > maxArgsz {
			return nil, 0, d.breakOff(codec.CmdGetRegionInfo, nil, "region %d: reply of %d bytes says it needs %d", index, k.n, info.ArgSz)
		}
		return nil, info.ArgSz, nil
	}
	r = &Region{Index: index, Flags: info.Flags, Size: info.Size, Areas: info.Sparse, Type: info.Type, device: d, offset: info.Offset}
	if info.Flags&codec.RegionFlagMmap == 0 {
		r.Areas = nil
		return r, 0, nil
	}
	if len(r.Areas) == 0 && info.Size > 0 {
		r.Areas = []Area{{Offset: 0, Size: info.Size}}
	}
	if n := len(k.fds); n != len(r.Areas) && (n != 1 || len(r.Areas) == 0) {
		return nil, 0, d.breakOff(codec.CmdGetRegionInfo, nil, "region %d: %d descriptors for %d mappable areas", index, n, len(r.Areas))
	}
	r.fds = append([]int(nil), k.fds...)
	k.fds = k.fds[:0]
	return r, 0, nil
}

// Readable says whether the region may be read.
func (r *Region) Readable() bool { return r.Flags&codec.RegionFlagRead != 0 }

// Writable says whether the region may be written.
func (r *Region) Writable() bool { return r.Flags&codec.RegionFlagWrite != 0 }

// Close releases the region's descriptors. Closing again does nothing.
func (r *Region) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	reactor.CloseFDs(r.fds)
	r.fds = nil
	return nil
}

// Mmap maps one of Areas. The mapping outlives the region and the session; close it in the end.
//
// A server that truncates the file behind the area later kills a client that touches it (SIGBUS), unless the
// goroutine has called debug.SetPanicOnFault. That the file is long enough now is checked.
func (r *Region) Mmap(area int) (*MappedRegion, error) {
	if area < 0 || area >= len(r.Areas) {
		return nil, fmt.Errorf("%w: region %d has no area %d", ErrNotMappable, r.Index, area)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.fds) == 0 {
		return nil, fmt.Errorf("client: region %d: %w", r.Index, ErrClosed)
	}
	fd := r.fds[0]
	if len(r.fds) > 1 {
		fd = r.fds[area]
	}
	a := r.Areas[area]
	if r.offset+a.Offset < r.offset {
		return nil, fmt.Errorf("%w: region %d: its offset overflows", ErrNotMappable, r.Index)
	}
	b, err := mapShared(fd, r.offset+a.Offset, a.Size, r.protection())
	if err != nil {
		if !errors.Is(err, ErrNotMappable) {
			err = fmt.Errorf("%w: %w", ErrNotMappable, err)
		}
		return nil, fmt.Errorf("client: mmap region %d, area %d: %w", r.Index, area, err)
	}
	return &MappedRegion{Offset: a.Offset, bytes: b, writable: r.Writable()}, nil
}

func (r *Region) protection() (prot int) {
	if r.Readable() {
		prot |= unix.PROT_READ
	}
	if r.Writable() {
		prot |= unix.PROT_WRITE
	}
	return prot
}
