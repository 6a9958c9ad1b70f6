package engine

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
)

// serveDMAMap is VFIO_USER_DMA_MAP.
func (s *Session) serveDMAMap(m *message) error {
	var req codec.DMAMap
	if err := req.Decode(m.payload); err != nil {
		return err
	}
	if len(m.fds) > 1 {
		return fmt.Errorf("DMA_MAP with %d descriptors: %w", len(m.fds), unix.EINVAL)
	}
	var prot dma.Prot
	if req.Flags&codec.DMAFlagRead != 0 {
		prot |= dma.ProtRead
	}
	if req.Flags&codec.DMAFlagWrite != 0 {
		prot |= dma.ProtWrite
	}
	if req.Flags&(codec.DMAFlagMmap|codec.DMAFlagFileIO) != 0 && len(m.fds) == 0 {
		return fmt.Errorf("DMA_MAP of a file without descriptor: %w", unix.EINVAL)
	}
	err := s.memory.Map(dma.Mapping{
		IOVA: req.Addr, Size: req.Size, Prot: prot, FD: m.takeFD(), Offset: req.Offset,
	})
	if err != nil {
		return err
	}
	s.ep.device.UpdateStatus(s, UpdateMemory)
	return nil
}

// startDMAUnmap is VFIO_USER_DMA_UNMAP. Its reply says that nothing refers to the
// region any more, so it waits for readers and for I/O in flight.
func (s *Session) startDMAUnmap(m *message) error {
	var req codec.DMAUnmap
	if err := req.DecodeRequest(m.payload); err != nil {
		return err
	}
	if req.Flags&codec.UnmapFlagGetDirtyBitmap != 0 {
		return fmt.Errorf("DMA_UNMAP asks for dirty pages that are not logged: %w", unix.EINVAL)
	}
	var first atomic.Bool // done and the return from Unmap may race: the second one finishes
	s.backlog.begin(m.Header)
	done := func() {
		if first.Swap(true) {
			s.Post(func() { s.unmapped(req) })
		}
	}
	var err error
	if req.Flags&codec.UnmapFlagAll != 0 {
		s.memory.UnmapAll(done)
	} else {
		err = s.memory.Unmap(req.Addr, req.Size, done)
	}
	if err != nil {
		s.backlog.pending = false
		return err
	}
	s.ep.device.UpdateStatus(s, UpdateMemory)
	if first.Swap(true) {
		s.unmapped(req)
	}
	return nil
}

// unmapped replies to a DMA_UNMAP with the request's own fields.
func (s *Session) unmapped(req codec.DMAUnmap) { s.backlog.finish(nil, req.Append) }
