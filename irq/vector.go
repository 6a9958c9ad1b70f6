package irq

import (
	"sync/atomic"
	"syscall"
)

// Vector is one interrupt. Its methods may be called from any goroutine.
type Vector struct {
	set   *Set
	state atomic.Uint32
	event atomic.Pointer[event] // nil: not assigned
	// Signalled when the vector is masked and unmasked; nil: nobody wants to know.
	onMask, onUnmask atomic.Pointer[event]
}

const (
	stateMasked  = 1 << iota
	statePending // fires when it can
	stateLevel   // the device holds its line up
	stateAuto    // constant: level-triggered, masks itself when it fires (INTx)
	stateLatch   // constant: stays pending while no eventfd is assigned
	stateClosed
)

// slow are the states in which a trigger is more than a write.
const slow = stateMasked | stateAuto | stateClosed | allGates

// Trigger raises the interrupt: it fires at once, or becomes pending if it is masked, gated
// or, but for ERR and REQ, not assigned. An INTx vector masks itself by firing. The
// error is ErrClosed, or nil; a counter that is full counts as signalled.
func (v *Vector) Trigger() error {
	if v.state.Load()&slow == 0 {
		if e := v.event.Load(); e != nil && e.acquire() {
			return v.set.write(e)
		}
	}
	return v.post()
}

// post is Trigger for what is not a plain write.
func (v *Vector) post() error {
	s := v.state.Load()
	if s&stateClosed != 0 {
		return ErrClosed
	}
	if s&stateLatch == 0 && v.event.Load() == nil {
		return nil
	}
	if s&statePending == 0 {
		v.state.Or(statePending)
	}
	return v.flush()
}

// flush fires if there is reason to and nothing against it. Whoever removes an
// obstacle (unmask, assign) calls it after, whoever adds a reason as well; so one of
// two that meet sees what the other did, and the swap lets one of them fire.
func (v *Vector) flush() error {
	for {
		s := v.state.Load()
		if s&v.reasons(s) == 0 || s&(stateMasked|stateClosed|allGates) != 0 {
			return nil
		}
		e := v.event.Load()
		if e == nil {
			return nil
		}
		if !e.acquire() {
			continue // replaced just now
		}
		next := s &^ statePending
		if s&stateAuto != 0 {
			next |= stateMasked
		}
		if !v.state.CompareAndSwap(s, next) {
			e.release()
			continue
		}
		err := v.set.write(e)
		if next&stateMasked != 0 {
			v.notify(&v.onMask)
		}
		return err
	}
}

// reasons are the bits that make a vector fire.
func (v *Vector) reasons(s uint32) uint32 {
	if s&stateAuto != 0 {
		return statePending | stateLevel
	}
	return statePending
}

// SetLevel raises or lowers the line of an INTx vector. A raised line fires, and
// again after each unmask until it is lowered. On other vectors a rising edge is a
// Trigger.
func (v *Vector) SetLevel(high bool) error {
	if !high {
		v.state.And(^uint32(stateLevel))
		return nil
	}
	old := v.state.Or(stateLevel)
	switch {
	case old&stateClosed != 0:
		return ErrClosed
	case old&stateLevel != 0:
		return nil
	case old&stateAuto == 0:
		return v.Trigger()
	}
	return v.flush()
}

// Pending tells whether the vector would fire if it were free to and assigned; of
// an INTx vector also whether its line is up.
func (v *Vector) Pending() bool {
	s := v.state.Load()
	return s&v.reasons(s) != 0
}

// Masked tells whether the vector is masked, by the client or by itself.
func (v *Vector) Masked() bool { return v.state.Load()&stateMasked != 0 }

// Assigned tells whether the vector has an eventfd.
func (v *Vector) Assigned() bool { return v.event.Load() != nil }

func (v *Vector) mask() {
	if v.state.Or(stateMasked)&stateMasked == 0 {
		v.notify(&v.onMask)
	}
}

func (v *Vector) unmask() error {
	if v.state.And(^uint32(stateMasked))&stateMasked != 0 {
		v.notify(&v.onUnmask)
	}
	return v.flush()
}

// notify signals an event of mask or unmask.
func (v *Vector) notify(p *atomic.Pointer[event]) {
	if e := p.Load(); e != nil && e.acquire() {
		_ = v.set.write(e) // nothing depends on it
	}
}

// write signals e, of which the caller is a user, and ends the use.
func (s *Set) write(e *event) error {
	// After acquire, so that either the watch sees the user or the user the watch gone.
	if !s.watched.Load() {
		s.watch()
	}
	errno := signal(e.fd)
	e.release()
	if errno != 0 && errno != syscall.EAGAIN {
		return errno
	}
	return nil
}
