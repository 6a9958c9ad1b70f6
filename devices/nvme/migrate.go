package nvme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime/debug"

	"vfiouser/engine"
)

// stateVersion is that of the layout of driveState.
const stateVersion = 1

// SaveState writes all that the host knows of the drive. Its storage goes along if it is
// this process's memory (block.Info.Private); else the destination must have the same.
func (c *Controller) SaveState(s *engine.Session, w io.Writer) error {
	h, err := c.hostOf(s)
	if err != nil {
		return err
	}
	return newMover(h).save(w)
}

// LoadState makes the controller the one that was saved, with its serial number, if both
// have as many queues and the same namespaces; else the error is ErrState.
func (c *Controller) LoadState(s *engine.Session, _ uint32, r io.Reader) error {
	h, err := c.hostOf(s)
	if err != nil {
		return err
	}
	return newMover(h).load(r)
}

// hostOf asks the reactor for the host of a session, which is the attached one.
func (c *Controller) hostOf(s *engine.Session) (*host, error) {
	h := make(chan *host, 1)
	s.Post(func() { h <- c.host })
	select {
	case h := <-h:
		return h, nil
	case <-s.Context().Done():
		return nil, context.Cause(s.Context())
	}
}

// mover saves or loads the state of a drive for one client, on a goroutine that may wait
// for the client's stream. The data path is held meanwhile.
type mover struct {
	h    *host
	data courier
}

func newMover(h *host) *mover {
	return &mover{h: h, data: courier{h: h, ended: make(chan error, 1)}}
}

// call runs f on the control goroutine and waits. A panic in f ends the session.
func (h *host) call(f func() error) (err error) {
	done := make(chan struct{})
	h.ask(func(r *request) {
		r.tasks = append(r.tasks, func() {
			defer close(done)
			defer func() {
				if v := recover(); v != nil {
					h.fault(v, debug.Stack())
					err = faultError(v)
				}
			}()
			err = f()
		})
	})
	select {
	case <-done:
		return err
	case <-h.done:
		return ErrClosed
	}
}

// save writes the state, and then the contents of private namespaces, and gives up storage
// that others may have.
func (m *mover) save(w io.Writer) error {
	var text []byte
	err := m.h.call(func() (err error) {
		text, err = json.Marshal(m.h.state())
		return err
	})
	if err == nil {
		err = writeChunk(w, text)
	}
	for _, ns := range m.h.c.active() {
		if err == nil && ns.info.Private {
			err = m.saveContents(w, ns)
		}
	}
	if err == nil {
		err = m.h.c.yieldStorage()
	}
	return err
}

// load makes the controller the one whose state r has. Nothing is changed before the whole
// of the state was found to be possible; who wrote it is not trusted. If it fails after
// that, the controller is a disabled one.
func (m *mover) load(r io.Reader) error {
	text, err := readChunk(r, maxStateSize)
	if err != nil {
		return err
	}
	// Two bytes of text may become a queue.
	if n := bytes.Count(text, []byte("{")) + bytes.Count(text, []byte("null")); n > maxStateObjects {
		return stateError("%d objects", n)
	}
	st := new(driveState)
	if err := json.Unmarshal(text, st); err != nil {
		return stateError("%v", err)
	}
	err = m.h.call(func() error {
		if err := m.h.check(st); err != nil {
			return err
		}
		m.h.reset()
		return nil
	})
	if err != nil {
		return err
	}
	for _, ns := range m.h.c.active() {
		if ns.info.Private {
			if err := m.loadContents(r, ns); err != nil {
				return err
			}
		}
	}
	// At its end the source has let go of the storage.
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 || err != io.EOF {
		return stateError("%d bytes follow it: %v", n, err)
	}
	return m.h.call(func() error {
		// The namespaces may have changed while the contents came.
		if err := m.h.check(st); err != nil {
			return err
		}
		if err := m.h.c.claimStorage(); err != nil {
			return errors.Join(err, m.h.c.yieldStorage()) // the source may go on
		}
		m.h.apply(st)
		return nil
	})
}
