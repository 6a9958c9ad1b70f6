package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/engine/reactor"
)

// ReadDMA fills p from guest memory at iova: directly where the client gave a
// descriptor for it, else with DMA_READ messages. It blocks until all is there, and
// may be called from any goroutine but the reactor.
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
	if uint64(len(p)) > -iova && iova != 0 {
		return dma.ErrNotMapped
	}
	for len(p) > 0 {
		n, err := s.copyMapped(iova, p, prot)
		if errors.Is(err, dma.ErrMessage) {
			n = min(len(p), int(min(s.peer.MaxDataXferSize, maxDMAMessage)))
			n, err = s.inRegion(iova, n, prot)
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

// inRegion shortens n to what lies in the region of iova.
func (s *Session) inRegion(iova uint64, n int, prot dma.Prot) (int, error) {
	r, err := s.memory.Lookup(iova, 1, prot)
	if err != nil {
		return 0, err
	}
	return int(min(uint64(n), r.Size-(iova-r.IOVA))), nil
}

// copyMapped copies from or to memory that is mapped here, as far as the region goes.
// The client may truncate it at any time, which shows as a fault.
func (s *Session) copyMapped(iova uint64, p []byte, prot dma.Prot) (n int, err error) {
	r := s.calls.reader()
	defer s.calls.putReader(r)
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

// dmaCalls is the server's own commands that the client has not answered yet.
type dmaCalls struct {
	session *Session
	closed  error
	lastID  uint16
	open    map[uint16]*dmaCall // reactor only

	mu      sync.Mutex
	readers []*dma.Reader // idle ones, for ReadDMA and WriteDMA
}

func (c *dmaCalls) reader() *dma.Reader {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.readers)
	if n == 0 {
		return c.session.memory.NewReader()
	}
	r := c.readers[n-1]
	c.readers = c.readers[:n-1]
	return r
}

func (c *dmaCalls) putReader(r *dma.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers = append(c.readers, r)
}

// dmaCall is one DMA_READ or DMA_WRITE on its way. Its data is its own: the caller
// may have given up when the reply comes.
type dmaCall struct {
	session *Session
	command codec.Command
	addr    uint64
	data    []byte
	timer   *reactor.Timer
	done    chan error
}

// message reads or writes guest memory with one message.
func (s *Session) message(ctx context.Context, iova uint64, p []byte, prot dma.Prot) error {
	call := &dmaCall{session: s, command: codec.CmdDMARead, addr: iova, data: make([]byte, len(p)), done: make(chan error, 1)}
	if prot == dma.ProtWrite {
		call.command = codec.CmdDMAWrite
		copy(call.data, p)
	}
	if !s.engine.reactor.Post(call) {
		return ErrClosed
	}
	select {
	case err := <-call.done:
		if err == nil && prot == dma.ProtRead {
			copy(p, call.data)
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run sends the command; the reactor calls it.
func (call *dmaCall) Run() {
	s := call.session
	c := &s.calls
	if c.closed != nil {
		call.done <- c.closed
		return
	}
	if len(c.open) > 0xffff {
		call.done <- unix.EBUSY
		return
	}
	for c.lastID++; c.open[c.lastID] != nil; c.lastID++ {
	}
	if c.open == nil {
		c.open = make(map[uint16]*dmaCall)
	}
	c.open[c.lastID] = call
	start := s.out.begin()
	req := codec.DMAAccess{Addr: call.addr, Count: uint64(len(call.data)), Data: call.data}
	if call.command == codec.CmdDMARead {
		s.out.set(req.AppendHead(s.out.bytes()))
	} else {
		s.out.set(req.Append(s.out.bytes()))
	}
	s.out.commit(start, codec.Header{ID: c.lastID, Command: call.command})
	call.timer = s.engine.reactor.AfterFunc(s.engine.cfg.DMATimeout, func() { s.drop(errUnanswered) })
	s.flush()
}

// answer takes a reply. One that answers nothing breaks the framing.
func (c *dmaCalls) answer(m *message) {
	call := c.open[m.ID]
	if call == nil || call.command != m.Command {
		c.session.drop(fmt.Errorf("reply to %v with id %d, which was not asked: %w", m.Command, m.ID, errFrame))
		return
	}
	err := call.finish(m)
	if errors.Is(err, errFrame) {
		c.session.drop(err)
		return
	}
	delete(c.open, m.ID)
	call.timer.Stop()
	call.done <- err
}

// finish checks a reply against the command and takes its data.
func (call *dmaCall) finish(m *message) error {
	if m.IsError() {
		return m.Err()
	}
	var reply codec.DMAAccess
	var err error
	if call.command == codec.CmdDMARead {
		err = reply.DecodeReadReply(m.payload)
	} else {
		err = reply.DecodeWriteReply(m.payload)
	}
	if err != nil || reply.Addr != call.addr || reply.Count != uint64(len(call.data)) {
		return fmt.Errorf("reply to %v does not match its command: %w", m.Command, errFrame)
	}
	copy(call.data, reply.Data)
	return nil
}

// close fails what is open. The session has ended.
func (c *dmaCalls) close(cause error) {
	c.closed = fmt.Errorf("%w: %w", ErrClosed, cause)
	for _, call := range c.open {
		call.timer.Stop()
		call.done <- c.closed
	}
	c.open = nil
}
