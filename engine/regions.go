package engine

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// serveGetRegionInfo is VFIO_USER_DEVICE_GET_REGION_INFO. Descriptors come with the
// complete reply only: a client that is told to ask again would leak them.
func (s *Session) serveGetRegionInfo(m *message) error {
	var info codec.RegionInfo
	if err := info.DecodeRequest(m.payload); err != nil {
		return err
	}
	if info.Index >= uint32(len(s.ep.regions)) {
		return fmt.Errorf("region %d: %w", info.Index, unix.EINVAL)
	}
	argsz := info.ArgSz
	r := &s.ep.regions[info.Index]
	info = codec.RegionInfo{Index: info.Index, Size: r.Size, Offset: r.Offset, Type: r.Type}
	if r.Read != nil && r.Size > 0 {
		info.Flags |= codec.RegionFlagRead
	}
	if r.Write != nil && r.Size > 0 {
		info.Flags |= codec.RegionFlagWrite
	}
	var fds []int
	if len(r.Areas) > 0 {
		info.Flags |= codec.RegionFlagMmap
		info.Sparse = r.sparse()
		fds = slices.Repeat([]int{r.FD}, int(min(uint64(len(r.Areas)), s.peer.MaxMsgFDs)))
	}
	start := len(s.out.bytes()) - codec.HeaderSize
	s.out.set(info.AppendReply(s.out.bytes(), argsz))
	if len(fds) > 0 && argsz >= info.ArgSz && !m.NoReply() {
		s.out.attach(start, fds)
	}
	return nil
}

// sparse is what the sparse mmap capability lists: nothing if all of the region is
// mappable.
func (r *Region) sparse() []codec.Area {
	if len(r.Areas) == 1 && r.Areas[0] == (Area{Size: r.Size}) {
		return nil
	}
	return r.Areas
}

// region checks an access against the region that it names.
func (s *Session) region(a *codec.RegionAccess) (*Region, error) {
	if a.Region >= uint32(len(s.ep.regions)) || a.Count > maxDataXfer || s.migration.sealed {
		return nil, unix.EINVAL
	}
	r := &s.ep.regions[a.Region]
	if a.Offset > r.Size || uint64(a.Count) > r.Size-a.Offset {
		return nil, unix.EINVAL
	}
	return r, nil
}

// serveRegionRead is VFIO_USER_REGION_READ.
func (s *Session) serveRegionRead(m *message) error {
	var a codec.RegionAccess
	if err := a.DecodeReadRequest(m.payload); err != nil {
		return err
	}
	r, err := s.region(&a)
	if err != nil {
		return err
	}
	if r.Read == nil {
		return unix.EINVAL
	}
	if a.Count == 0 {
		s.out.set(a.AppendHead(s.out.bytes()))
		return nil
	}
	out := slices.Grow(a.AppendHead(s.out.bytes()), int(a.Count))
	data := out[len(out) : len(out)+int(a.Count)]
	clear(data)
	s.out.set(out[:len(out)+len(data)])
	return r.Read(a.Offset, data)
}

// serveRegionWrite is VFIO_USER_REGION_WRITE.
func (s *Session) serveRegionWrite(m *message) error {
	var a codec.RegionAccess
	if err := a.DecodeWriteRequest(m.payload); err != nil {
		return err
	}
	s.out.set(a.AppendHead(s.out.bytes()))
	if err := s.writeRegion(&a); err != nil || !s.resetAsked {
		return err
	}
	s.resetAsked = false
	s.backlog.begin(m.Header)
	ack := a // (a itself stays off the heap)
	s.reset(func() { s.backlog.finish(nil, ack.AppendHead) })
	return errPending
}

// writeRegion checks one write and hands it to the device.
func (s *Session) writeRegion(a *codec.RegionAccess) error {
	r, err := s.region(a)
	if err != nil {
		return err
	}
	if r.Write == nil {
		return unix.EINVAL
	}
	if a.Count == 0 {
		return nil
	}
	return r.Write(a.Offset, a.Data)
}
