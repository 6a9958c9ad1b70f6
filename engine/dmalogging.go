package engine

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
)

// startDMALogging is the SET of VFIO_DEVICE_FEATURE_DMA_LOGGING_START.
func (s *Session) startDMALogging(req *codec.Feature, reply func([]byte, error)) {
	var start codec.DMALogging
	if err := start.Decode(req.Data); err != nil {
		reply(nil, err)
		return
	}
	ranges := make([]dma.Range, start.Count)
	for i := range ranges {
		r := start.Range(i)
		ranges[i] = dma.Range{IOVA: r.IOVA, Size: r.Length}
	}
	// There may be tens of thousands of ranges, and who ends the last section that began
	// before is somebody else.
	go func() {
		started := make(chan struct{})
		size, err := s.memory.StartLogging(start.PageSize, ranges, func() { close(started) })
		if err == nil {
			<-started
			start.PageSize = size
		}
		data := start.Append(nil)
		s.Post(func() { reply(data, err) })
	}()
}

// stopDMALogging is the SET of VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, which has no data;
// libvfio-user's tests send that of START.
func (s *Session) stopDMALogging(req *codec.Feature, reply func([]byte, error)) {
	s.memory.StopLogging()
	reply(req.Data, nil)
}

// reportDMALogging is the GET of VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT. The range need
// not be a region, nor be mapped at all, which libvfio-user demands.
func (s *Session) reportDMALogging(req *codec.Feature, reply func([]byte, error)) {
	var report codec.DMALoggingReport
	if err := report.DecodeRequest(req.Data); err != nil {
		reply(nil, err)
		return
	}
	size := codec.BitmapBytes(report.Length, report.PageSize)
	// Before anything is forgotten.
	if size > maxDataXfer || size > s.peer.MaxDataXferSize ||
		uint64(req.ArgSz) < codec.FeatureSize+codec.DMALoggingReportSize+size {
		reply(nil, fmt.Errorf("no room for a dirty bitmap of %d bytes: %w", size, unix.EINVAL))
		return
	}
	go func() {
		bitmap, err := s.dirtyBitmap(report.IOVA, report.Length, report.PageSize)
		report.Bitmap = bitmap
		data := report.Append(nil)
		s.Post(func() { reply(data, err) })
	}()
}

// dirtyBitmap reports as the wire has it.
func (s *Session) dirtyBitmap(iova, length, pageSize uint64) ([]byte, error) {
	words := make([]uint64, codec.BitmapBytes(length, pageSize)/8)
	if err := s.memory.ReportDirty(dma.Range{IOVA: iova, Size: length}, pageSize, words); err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(words)*8)
	for _, w := range words {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b, nil
}

// checkUnmapBitmap checks what a DMA_UNMAP with GET_DIRTY_BITMAP asks for, before
// anything is unmapped.
func (s *Session) checkUnmapBitmap(req *codec.DMAUnmap) error {
	switch b := &req.Bitmap; {
	case s.memory.LogPageSize() == 0:
		return fmt.Errorf("DMA_UNMAP asks for dirty pages that are not logged: %w", unix.EINVAL)
	case bits.OnesCount64(b.PgSize) != 1:
		return fmt.Errorf("DMA_UNMAP asks for a dirty bitmap with pages of %d bytes: %w", b.PgSize, unix.EINVAL)
	case b.Size != codec.BitmapBytes(req.Size, b.PgSize):
		return fmt.Errorf("DMA_UNMAP asks for a dirty bitmap of %d bytes for %#x: %w", b.Size, req.Size, unix.EINVAL)
	case b.Size > maxDataXfer, b.Size > s.peer.MaxDataXferSize, req.ArgSz > maxDataXfer:
		return fmt.Errorf("DMA_UNMAP asks for a dirty bitmap of %d bytes, argsz %d: %w", b.Size, req.ArgSz, unix.EINVAL)
	}
	return nil
}

// unmapWithBitmap unmaps a region and replies with what was written to it, which is
// certain when nobody refers to it any more.
func (s *Session) unmapWithBitmap(req codec.DMAUnmap) {
	go func() {
		released := make(chan error, 1)
		s.unmap(req, func(err error) { released <- err })
		err := <-released
		if err == nil {
			req.Bitmap.Data, err = s.dirtyBitmap(req.Addr, req.Size, req.Bitmap.PgSize)
		}
		s.Post(func() { s.unmapped(req, err) })
	}()
}
