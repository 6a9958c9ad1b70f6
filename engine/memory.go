package engine

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
)

// startDMAMap is VFIO_USER_DMA_MAP. The client may use the region when it has the reply, so
// that waits for workers which do not see it yet.
func (s *Session) startDMAMap(m *message) error {
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
		return nil
	}
	if err := s.memory.Map(region); err != nil {
		return err
	}
	s.backlog.begin(m.Header)
	s.mapped(nil)
	return nil
}

// mapped replies to a DMA_MAP when everybody sees the region, or with the reason why there is
// none.
func (s *Session) mapped(err error) {
	if err != nil || s.state == stateDropped {
		s.backlog.finish(err, nil)
		return
	}
	s.ep.device.UpdateStatus(s, UpdateMemory)
	s.await(func(done func(error)) {
		s.memory.Seen(func() { done(nil) })
	}, func(error) { s.backlog.finish(nil, nil) })
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
	s.await(func(done func(error)) { s.unmap(req, done) }, func(err error) { s.unmapped(req, err) })
	return nil
}

// await runs end on the reactor when begin has called done, which may be anywhere: at once if
// that was before begin returned.
func (s *Session) await(begin func(done func(error)), end func(error)) {
	// Whoever comes second ends.
	var first atomic.Bool
	var result error
	begin(func(err error) {
		result = err
		if first.Swap(true) {
			s.Post(func() { end(err) })
		}
	})
	if first.Swap(true) {
		end(result)
	}
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
