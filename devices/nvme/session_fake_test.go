package nvme

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/irq"
)

// fakeSession is a client without a socket. Its memory is one memfd, mapped for the
// device or reached by "message".
type fakeSession struct {
	table  *dma.Table
	irqs   *irq.Set
	ctx    context.Context
	cancel context.CancelCauseFunc
	ram    []byte
	fd     int

	mu     sync.Mutex
	failed error
}

func (s *fakeSession) Memory() *dma.Table       { return s.table }
func (s *fakeSession) IRQ() *irq.Set            { return s.irqs }
func (s *fakeSession) Context() context.Context { return s.ctx }
func (s *fakeSession) Logger() *slog.Logger     { return slog.New(slog.DiscardHandler) }

func (s *fakeSession) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.cancel(err)
}

func (s *fakeSession) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *fakeSession) ReadDMA(ctx context.Context, iova uint64, p []byte) error {
	return s.access(ctx, iova, p, dma.ProtRead)
}

func (s *fakeSession) WriteDMA(ctx context.Context, iova uint64, p []byte) error {
	return s.access(ctx, iova, p, dma.ProtWrite)
}

func (s *fakeSession) access(ctx context.Context, iova uint64, p []byte, prot dma.Prot) error {
	for len(p) > 0 {
		n := min(len(p), int(4096-iova%4096))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r, err := s.table.Lookup(iova, uint64(n), prot)
		if err != nil {
			return err
		}
		at := s.ram[r.Offset+iova-r.IOVA:][:n]
		switch {
		case n == 4 && prot == dma.ProtRead:
			binary.LittleEndian.PutUint32(p, dma.Load32(at, 0))
		case n == 4:
			dma.Store32(at, 0, binary.LittleEndian.Uint32(p))
		case prot == dma.ProtRead:
			copy(p, at)
		case n == spec.CompletionEntrySize:
			dma.Publish16(at, binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]))
		default:
			copy(at, p)
		}
		if prot == dma.ProtWrite {
			s.table.MarkDirty(iova, uint64(n))
		}
		iova, p = iova+uint64(n), p[n:]
	}
	return nil
}
