package engine

import (
	"slices"

	"vfiouser/codec"
)

// writeMulti is a REGION_WRITE_MULTI that is being served.
type writeMulti struct {
	codec.WriteMulti
	done int // writes completed
}

// serveWriteMulti is VFIO_USER_REGION_WRITE_MULTI: writes in order, each as if it came
// alone. A write that is refused is the last; if it was the first the reply has its errno,
// otherwise the number of writes that were completed, and the client may repeat the next
// one to learn its errno.
func (s *Session) serveWriteMulti(m *message) error {
	var w writeMulti
	if err := w.DecodeRequest(m.payload); err != nil {
		return err
	}
	more, err := s.writeSome(&w)
	if more {
		rest := w // (w itself stays off the heap)
		rest.Writes = slices.Clone(rest.Writes)
		s.backlog.begin(m.Header)
		s.continueMulti(&rest)
		return errPending
	}
	if err != nil {
		return err
	}
	s.out.set(w.appendReply(s.out.bytes()))
	return nil
}

// appendReply appends the number of writes that were done.
func (w *writeMulti) appendReply(dst []byte) []byte {
	reply := codec.WriteMulti{Count: uint64(w.done)}
	return reply.AppendHead(dst)
}

// writeSome writes until the end, the first refusal, a reset that has to be done first, or
// the end of the session's turn; more says that it is one of the last two.
func (s *Session) writeSome(w *writeMulti) (more bool, err error) {
	for w.done < int(w.Count) {
		if w.done > 0 && s.turn.over() {
			return true, nil
		}
		a := w.Write(w.done)
		if err := s.writeRegion(&a); err != nil {
			if w.done > 0 {
				err = nil
			}
			return false, err
		}
		w.done++
		if s.resetAsked {
			return true, nil
		}
	}
	return false, nil
}

// continueMulti goes on with a command that is pending: after the reset that a write asked
// for, or in the session's next turn.
func (s *Session) continueMulti(w *writeMulti) {
	if s.resetAsked {
		s.resetAsked = false
		s.reset(func() { s.finishMulti(w) })
		return
	}
	s.engine.reactor.AfterFunc(0, func() { s.takeTurn(func() { s.finishMulti(w) }) })
}

func (s *Session) finishMulti(w *writeMulti) {
	if s.state == stateDropped {
		return
	}
	if more, _ := s.writeSome(w); more {
		s.continueMulti(w)
		return
	}
	s.backlog.finish(nil, w.appendReply)
}
