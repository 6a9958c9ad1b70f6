package client

import (
	"context"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// IOArea is a part of a region that can be written to through a descriptor, usually by KVM. The descriptors
// belong to the IOFDs, and several areas may have the same one.
type IOArea struct {
	Area                // Size 0: writes of any size
	Type codec.IOFDType // what FD is
	// Flags are codec.IOEventfdDatamatch and the like, according to Type.
	Flags uint32
	// Data is the value that a write must have to count (codec.IOEventfdDatamatch), or user data of an IORegionfd.
	Data uint64
	FD   int
	// ShadowFD is a file in which the value that is written goes to ShadowOffset before FD is signalled: of a
	// codec.IOEventfdShadow, else -1.
	ShadowFD     int
	ShadowOffset uint64 // bytes
}

// IOFDs is the answer to GET_REGION_IO_FDS.
type IOFDs struct {
	Areas []IOArea

	mu  sync.Mutex
	fds []int
}

// Close closes the descriptors. Closing again does nothing.
func (f *IOFDs) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	reactor.CloseFDs(f.fds)
	f.fds = nil
	return nil
}

// IOFDs asks for the parts of the region that can be written to through descriptors (GET_REGION_IO_FDS). Close it to release
// the descriptors. A server that lacks the command answers with an error, one without such parts with none.
//
// It is checked that each area lies in the region and refers to a descriptor of the kind that its type demands. A
// shared descriptor stays the server's as well: it may be made blocking at any time, so leave writing to it to KVM.
func (r *Region) IOFDs(ctx context.Context) (*IOFDs, error) {
	argsz := uint32(firstArgsz)
	for range 2 {
		f, needed, err := r.askIOFDs(ctx, argsz)
		if err != nil || f != nil {
			return f, err
		}
		argsz = needed
	}
	return nil, r.device.breakOff(codec.CmdGetRegionIOFDs, nil, "region %d: what the server needs keeps growing", r.Index)
}

// askIOFDs asks with room for argsz bytes. If that was too little, f is nil and needed tells how much it takes.
func (r *Region) askIOFDs(ctx context.Context, argsz uint32) (f *IOFDs, needed uint32, err error) {
	d := r.device
	k, err := d.conn.begin(ctx, codec.CmdGetRegionIOFDs)
	if err != nil {
		return nil, 0, err
	}
	ask := codec.IOFDs{ArgSz: argsz, Index: uint32(r.Index)}
	answer := make([]byte, argsz)
	k.expect(0, answer)
	if err := d.conn.request(ctx, k, ask.AppendRequest(k.payload())); err != nil {
		return nil, 0, err
	}
	defer d.conn.release(k)
	fail := func(cause error, format string, args ...any) (*IOFDs, uint32, error) {
		return nil, 0, d.breakOff(codec.CmdGetRegionIOFDs, cause, "region "+strconv.Itoa(r.Index)+": "+format, args...)
	}
	var got codec.IOFDs
	if err := got.DecodeReply(answer[:k.n]); err != nil {
		return fail(err, "bad reply")
	}
	if got.Index != ask.Index || got.Flags != 0 {
		return fail(nil, "reply for region %d with flags %#x", got.Index, got.Flags)
	}
	if got.Truncated(k.n) {
		if got.ArgSz <= argsz || got.ArgSz > maxArgsz {
			return fail(nil, "reply of %d bytes says it needs %d", k.n, got.ArgSz)
		}
		return nil, got.ArgSz, nil
	}
	f = &IOFDs{Areas: make([]IOArea, len(got.Regions))}
	for i := range got.Regions {
		if err := f.Areas[i].fill(&got.Regions[i], r.Size, k.fds); err != nil {
			return fail(err, "area %d", i)
		}
	}
	f.fds = append([]int(nil), k.fds...)
	k.fds = k.fds[:0]
	return f, 0, nil
}

// fill takes an area over and checks it against the region's size and the descriptors that came.
func (a *IOArea) fill(from *codec.IOFD, size uint64, fds []int) error {
	*a = IOArea{
		Area: Area{Offset: from.Offset, Size: from.Size}, Type: from.Type, Flags: from.Flags, Data: from.Data,
		FD: -1, ShadowFD: -1, ShadowOffset: from.ShadowOffset,
	}
	switch {
	case from.Offset >= size || from.Size > size-from.Offset:
		return invalid("%d bytes at %#x of a region of %#x", from.Size, from.Offset, size)
	case from.FDIndex >= uint32(len(fds)):
		return invalid("descriptor %d of %d", from.FDIndex, len(fds))
	}
	a.FD = fds[from.FDIndex]
	switch a.Type {
	case codec.IOEventfd, codec.IOEventfdShadow:
		if !isEventfd(a.FD) {
			return invalid("descriptor %d is no eventfd", from.FDIndex)
		}
	case codec.IORegionfd:
		if !isStreamSocket(a.FD) {
			return invalid("descriptor %d is no socket", from.FDIndex)
		}
	default:
		return invalid("unknown type %d", a.Type)
	}
	if a.Type != codec.IOEventfdShadow {
		return nil
	}
	if from.ShadowFDIndex >= uint32(len(fds)) {
		return invalid("shadow descriptor %d of %d", from.ShadowFDIndex, len(fds))
	}
	a.ShadowFD = fds[from.ShadowFDIndex]
	var st unix.Stat_t
	if err := unix.Fstat(a.ShadowFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return invalid("shadow descriptor %d is no memory", from.ShadowFDIndex)
	}
	if a.ShadowOffset > uint64(st.Size) || uint64(st.Size)-a.ShadowOffset < max(a.Size, 1) {
		return invalid("shadow at %#x of %#x bytes of memory", a.ShadowOffset, st.Size)
	}
	return nil
}

// isEventfd tells what fd really is.
func isEventfd(fd int) bool {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && name == "anon_inode:[eventfd]"
}

// isStreamSocket tells whether fd is a connected unix stream socket.
func isStreamSocket(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return false
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	_, err = unix.Getpeername(fd)
	return err == nil
}
