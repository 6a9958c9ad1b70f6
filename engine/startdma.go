package engine

import (
	"errors"

	"vfiouser/dma"
)

// StartReadDMA begins to fill p from guest memory at iova, as ReadDMA does, and returns at
// once. It may be called from any goroutine, a region handler included: the messages leave
// after the access is answered, and the client's accesses are served while they are on
// their way. p belongs to the engine until done is called.
//
// done is called once, on the reactor: it must not block. The error is as for ReadDMA; when
// the session ends, done is called with ErrClosed before DestroyDevice. It is never called
// before StartReadDMA has returned, unless the engine is closed. Operations are begun in
// the order of the calls, each with one message at a time, and end in any order.
func (s *Session) StartReadDMA(iova uint64, p []byte, done func(error)) {
	s.startDMA(iova, p, dma.ProtRead, done)
}

// StartWriteDMA is StartReadDMA in the other direction.
func (s *Session) StartWriteDMA(iova uint64, p []byte, done func(error)) {
	s.startDMA(iova, p, dma.ProtWrite, done)
}

func (s *Session) startDMA(iova uint64, p []byte, prot dma.Prot, done func(error)) {
	op := &dmaOperation{session: s, prot: prot, iova: iova, rest: p, done: done}
	op.call.command, op.call.finish = dmaCommand(prot), op.answered
	if !s.engine.reactor.Post(op) {
		done(ErrClosed)
	}
}

// maxDMACopy is how much of mapped memory is copied on the reactor at a time, in bytes.
const maxDMACopy = 256 << 10

// dmaOperation is what StartReadDMA or StartWriteDMA began. It lives on the reactor.
type dmaOperation struct {
	session *Session
	prot    dma.Prot
	iova    uint64
	rest    []byte // what is not moved yet
	call    dmaCall
	done    func(error)
}

// Run goes on; the reactor calls it.
func (op *dmaOperation) Run() {
	s := op.session
	switch {
	case s.calls.closed != nil:
		op.end(s.calls.closed)
		return
	case wraps(op.iova, len(op.rest)):
		op.end(dma.ErrNotMapped)
		return
	case len(op.rest) == 0:
		op.end(nil)
		return
	}
	n, err := s.copyMapped(op.iova, op.rest[:min(len(op.rest), maxDMACopy)], op.prot)
	if errors.Is(err, dma.ErrMessage) {
		if n, err = s.messageSize(op.iova, len(op.rest), op.prot); err == nil {
			op.call.addr, op.call.data = op.iova, op.rest[:n]
			s.calls.send(&op.call)
			return
		}
	}
	if err != nil {
		op.end(err)
		return
	}
	op.moved(n)
	s.engine.reactor.Post(op)
}

// answered follows a message.
func (op *dmaOperation) answered(err error) {
	if err != nil {
		op.end(err)
		return
	}
	op.moved(len(op.call.data))
	if len(op.rest) == 0 {
		op.end(nil)
		return
	}
	op.session.engine.reactor.Post(op)
}

func (op *dmaOperation) moved(n int) { op.iova, op.rest = op.iova+uint64(n), op.rest[n:] }

func (op *dmaOperation) end(err error) {
	op.session.guard(func() { op.done(err) })
}
