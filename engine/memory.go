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
	if req.Flags&(codec.DMAFlagMmap|codec.DMAFlagFileIO) != 0 && len(m.fds) == 0 {
		return fmt.Errorf("DMA_MAP of a file without descriptor: %w", unix.EINVAL)
	}
	region := dma.Mapping{IOVA: req.Addr, Size: req.Size, Prot: req.Flags & (dma.ProtRead | dma.ProtWrite), FD: m.takeFD(), Offset: req.Offset}
	if region.FD >= 0 && !dma.Prompt(region.FD) {
		s.backlog.begin(m.Header)
		s.ep.foreign.do(func() {
			err := s.memory.Map(region)
			s.Post(func() { s.mapped(err) })
		})
		return errPending
	}
	if err := s.memory.Map(region); err != nil {
		return err
	}
	s.ep.device.UpdateStatus(s, UpdateMemory)
	return nil
}

// mapped replies to a DMA_MAP that took its time.
func (s *Session) mapped(err error) {
	if err == nil && s.state != stateDropped {
		s.ep.device.UpdateStatus(s, UpdateMemory)
	}
	s.backlog.finish(err, nil)
}

// startDMAUnmap is VFIO_USER_DMA_UNMAP. Its reply says that nothing refers to the
// region any more, so it waits for readers and for I/O in flight.
func (s *Session) startDMAUnmap(m *message) error {
	var req codec.DMAUnmap
	if err := req.DecodeRequest(m.payload); err != nil {
		return err
	}
	bitmap := req.Flags&codec.UnmapFlagGetDirtyBitmap != 0
	if bitmap {
		if err := s.checkUnmapBitmap(&req); err != nil {
			return err
		}
	}
	s.backlog.begin(m.Header)
	switch {
	case bitmap:
		s.unmapWithBitmap(req)
		return nil
	case req.Flags&codec.UnmapFlagAll != 0: // there may be many
		go s.unmap(req, func(err error) { s.Post(func() { s.unmapped(req, err) }) })
		return nil
	}
	// Whoever comes second finishes: done, which may run anywhere, or this goroutine,
	// which can reply at once.
	var first atomic.Bool
	var result error
	s.unmap(req, func(err error) {
		result = err
		if first.Swap(true) {
			s.Post(func() { s.unmapped(req, err) })
		}
	})
	if first.Swap(true) {
		s.unmapped(req, result)
	}
	return nil
}

// unmap takes regions out of the table; done is called once, anywhere, when nothing
// refers to them any more, or with the reason why there is nothing to unmap.
func (s *Session) unmap(req codec.DMAUnmap, done func(error)) {
	released := func() { done(nil) }
	if req.Flags&codec.UnmapFlagAll != 0 {
		s.memory.UnmapAll(released)
	} else if err := s.memory.Unmap(req.Addr, req.Size, released); err != nil {
		done(err)
	}
}

// unmapped replies to a DMA_UNMAP with the request's own fields.
func (s *Session) unmapped(req codec.DMAUnmap, err error) {
	if err == nil && s.state != stateDropped {
		s.ep.device.UpdateStatus(s, UpdateMemory)
	}
	s.backlog.finish(err, req.Append)
}
