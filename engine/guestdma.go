package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

// ErrOnReactor is returned by ReadDMA and WriteDMA when they would have to wait for a
// message on the reactor, which is what takes messages. Region handlers use StartReadDMA
// and StartWriteDMA. It is also EDEADLK.
var ErrOnReactor error = onReactor{}

type onReactor struct{}

func (onReactor) Error() string {
	return "engine: a blocking call on the reactor would wait for itself"
}
func (onReactor) Unwrap() error { return unix.EDEADLK }

// ReadDMA fills p from guest memory at iova: directly where the client gave a
// descriptor for it, else with DMA_READ messages. It blocks until all is there, so it is
// not for the reactor (ErrOnReactor).
//
// It fails if a part of the range is not mapped for reading (dma.ErrNotMapped,
// dma.ErrProt), if the client refuses (its errno), and if ctx or the session ends.
// A client that does not answer within Config.DMATimeout is dropped.
func (s *Session) ReadDMA(ctx context.Context, iova uint64, p []byte) error {
	return s.access(ctx, iova, p, dma.ProtRead)
}

// WriteDMA is ReadDMA in the other direction.
func (s *Session) WriteDMA(ctx context.Context, iova uint64, p []byte) error {
	return s.access(ctx, iova, p, dma.ProtWrite)
}

// maxDMAMessage is the most that one DMA_READ or DMA_WRITE moves, in bytes, so that
// the message and its reply are sent whole (see wholeSize).
const maxDMAMessage = 32 << 10

// access goes from region to region.
func (s *Session) access(ctx context.Context, iova uint64, p []byte, prot dma.Prot) error {
	if wraps(iova, len(p)) {
		return dma.ErrNotMapped
	}
	for len(p) > 0 {
		n, err := s.copyMapped(iova, p, prot)
		if errors.Is(err, dma.ErrMessage) {
			n, err = s.messageSize(iova, len(p), prot)
			if err == nil {
				err = s.message(ctx, iova, p[:n], prot)
			}
		}
		if err != nil {
			return err
		}
		iova, p = iova+uint64(n), p[n:]
	}
	return nil
}

// wraps says whether the range leaves the 64-bit address space.
func wraps(iova uint64, n int) bool { return uint64(n) > -iova && iova != 0 }

// messageSize shortens n to what lies in the region of iova and fits into a message.
func (s *Session) messageSize(iova uint64, n int, prot dma.Prot) (int, error) {
	r, err := s.memory.Lookup(iova, 1, prot)
	if err != nil {
		return 0, err
	}
	return int(min(uint64(n), r.Size-(iova-r.IOVA), s.peer.MaxDataXferSize, maxDMAMessage)), nil
}

// copyMapped copies from or to memory that is mapped here, as far as the region goes.
// The client may truncate it at any time, which shows as a fault.
func (s *Session) copyMapped(iova uint64, p []byte, prot dma.Prot) (n int, err error) {
	r := s.readers.get(s.memory)
	defer s.readers.put(r)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r.Exit()
		if v := recover(); v != nil {
			addr, ok := dma.IsFault(v)
			if !ok {
				panic(v)
			}
			err = fmt.Errorf("guest memory at IOVA %#x (%#x here) has gone: %w", iova, addr, unix.EFAULT)
			s.Fail(err)
		}
	}()
	r.Enter()
	b, err := r.Span(iova, uint64(len(p)), prot)
	if err != nil {
		return 0, err
	}
	if prot == dma.ProtRead {
		return copy(p, b), nil
	}
	return copy(b, p), nil
}

// readerPool keeps idle readers of a session's memory for ReadDMA and the like.
type readerPool struct {
	mu   sync.Mutex
	idle []*dma.Reader
}

func (p *readerPool) get(t *dma.Table) *dma.Reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return t.NewReader()
	}
	r := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return r
}

func (p *readerPool) put(r *dma.Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, r)
}

// suspectTime is how long a call may wait for the reactor to take it before it is asked
// whether it stands on the reactor itself. The question costs some 50 µs.
const suspectTime = 2 * time.Millisecond

// waitingCall is a DMA message for which a goroutine waits. Its data is its own: the
// goroutine may have given up when the reply comes.
type waitingCall struct {
	dmaCall
	session *Session
	taken   atomic.Bool // by the reactor
	given   atomic.Bool // up before that
	done    chan error
}

// Run sends the command; the reactor calls it.
func (w *waitingCall) Run() {
	w.taken.Store(true)
	if !w.given.Load() {
		w.session.calls.send(&w.dmaCall)
	}
}

// message reads or writes guest memory with one message.
func (s *Session) message(ctx context.Context, iova uint64, p []byte, prot dma.Prot) error {
	w := &waitingCall{session: s, done: make(chan error, 1)}
	w.dmaCall = dmaCall{
		command: dmaCommand(prot), addr: iova, data: make([]byte, len(p)),
		finish: func(err error) { w.done <- err },
	}
	if prot == dma.ProtWrite {
		copy(w.data, p)
	}
	if !s.engine.reactor.Post(w) {
		return ErrClosed
	}
	suspect := time.NewTimer(suspectTime)
	defer suspect.Stop()
	for {
		select {
		case err := <-w.done:
			if err == nil && prot == dma.ProtRead {
				copy(p, w.data)
			}
			return err
		case <-ctx.Done():
			w.given.Store(true)
			return context.Cause(ctx)
		case <-suspect.C:
			if !w.taken.Load() && s.engine.reactor.OnLoop() {
				w.given.Store(true)
				return ErrOnReactor
			}
		}
	}
}
