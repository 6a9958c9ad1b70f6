package reactor

import (
	"fmt"

	gneterrors "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// Events is a set of readiness events. Zero means none: the descriptor stays registered but is not watched.
type Events uint8

const (
	Readable Events = 1 << iota
	Writable
)

// Handler handles the events of one descriptor. Events are hints: a handler makes non-blocking system calls and
// believes only those. A hang-up or an error comes as Readable|Writable whatever was asked for, and comes
// again until the descriptor is removed. An event may be spurious.
type Handler interface {
	HandleEvents(ev Events)
}

// FD is a registered descriptor. The descriptor itself stays the caller's.
type FD struct {
	r       *Reactor
	fd      int
	events  Events
	handler Handler // nil once removed
}

// slot is what the loop keeps for a descriptor number. Under poll_opt the kernel holds a raw pointer to the attachment and
// may have handed it out already, in the batch being worked on, when the registration goes away. So a slot
// is never freed while the reactor lives: a late event finds the slot of its number, and there the handler
// of today (for which an event is a hint) or none, but never a removed one.
type slot struct {
	attachment netpoll.PollAttachment
	current    *FD
}

func (r *Reactor) slot(fd int) *slot {
	for fd >= len(r.slots) {
		r.slots = append(r.slots, nil)
	}
	if r.slots[fd] == nil {
		r.slots[fd] = &slot{attachment: netpoll.PollAttachment{FD: fd, Callback: r.dispatch}}
	}
	return r.slots[fd]
}

// Add registers fd, level-triggered. Loop only; from elsewhere use Post or Do. The descriptor should be non-blocking,
// must be one that epoll accepts (EPERM for a regular file), and is EEXIST until it is removed, even
// if it was closed meanwhile.
func (r *Reactor) Add(fd int, ev Events, h Handler) (*FD, error) {
	if r.closed {
		return nil, ErrClosed
	}
	if fd < 0 || h == nil || ev&^(Readable|Writable) != 0 {
		return nil, fmt.Errorf("reactor: add descriptor %d: %w", fd, unix.EINVAL)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil { // before a slot is made for any number
		return nil, fmt.Errorf("reactor: add descriptor %d: %w", fd, err)
	}
	s := r.slot(fd)
	if s.current != nil {
		return nil, fmt.Errorf("reactor: add descriptor %d: %w", fd, unix.EEXIST)
	}
	if err := r.watch(s, ev); err != nil {
		return nil, fmt.Errorf("reactor: add descriptor %d: %w", fd, err)
	}
	f := &FD{r: r, fd: fd, events: ev, handler: h}
	s.current = f
	return f, nil
}

// watch begins to watch a descriptor that is not in the poller.
func (r *Reactor) watch(s *slot, ev Events) error {
	switch ev {
	case Readable:
		return r.poller.AddRead(&s.attachment, false)
	case Writable:
		return r.poller.AddWrite(&s.attachment, false)
	case Readable | Writable:
		return r.poller.AddReadWrite(&s.attachment, false)
	}
	return nil
}

// Modify changes what is watched. Loop only. With zero not even a hang-up is reported. After an error other than
// ErrClosed nothing is watched.
func (f *FD) Modify(ev Events) error {
	if f.handler == nil || f.r.closed {
		return ErrClosed
	}
	if ev&^(Readable|Writable) != 0 {
		return fmt.Errorf("reactor: modify descriptor %d: %w", f.fd, unix.EINVAL)
	}
	if ev == f.events {
		return nil
	}
	if err := f.change(ev); err != nil {
		return fmt.Errorf("reactor: modify descriptor %d: %w", f.fd, err)
	}
	return nil
}

func (f *FD) change(ev Events) error {
	p, s := f.r.poller, f.r.slots[f.fd]
	old := f.events
	f.events = 0
	var err error
	switch {
	case old == 0:
		err = f.r.watch(s, ev)
	case ev == Readable:
		err = p.ModRead(&s.attachment, false)
	case ev == Readable|Writable:
		err = p.ModReadWrite(&s.attachment, false)
	default: // netpoll has no call to modify to "writable only"
		if err = p.Delete(f.fd); err == nil {
			err = f.r.watch(s, ev)
		}
	}
	if err == nil {
		f.events = ev
	}
	return err
}

// Remove ends the registration; the handler is not called again. Loop only, or after Close has returned; before
// the descriptor is closed. Removing again does nothing. An error says that the poller no longer
// knew the descriptor; the registration is gone all the same.
func (f *FD) Remove() error {
	if f.handler == nil {
		return nil
	}
	f.handler = nil
	if f.r.closed {
		return nil
	}
	f.r.slots[f.fd].current = nil
	if f.events == 0 {
		return nil
	}
	if err := f.r.poller.Delete(f.fd); err != nil {
		return fmt.Errorf("reactor: remove descriptor %d: %w", f.fd, err)
	}
	return nil
}

// dispatch is the callback of every descriptor. It serves the event, and then those that the loop waits for itself, until
// netpoll has to be asked. Its error ends the poller's loop.
func (r *Reactor) dispatch(fd int, ev netpoll.IOEvent, _ netpoll.IOFlags) error {
	r.serve(fd, ev)
	for !r.stopping {
		n := r.idle()
		if n == 0 {
			return nil
		}
		for i := 0; i < n && !r.stopping; i++ {
			r.serve(eventFD(&r.idler.events[i]), netpoll.IOEvent(r.idler.events[i].Events))
		}
	}
	return gneterrors.ErrEngineShutdown
}

// serve serves one event and what was posted until then.
func (r *Reactor) serve(fd int, ev netpoll.IOEvent) {
	r.state.Or(awake)
	r.quiet = false
	r.handle(fd, ev)
	r.yield = r.yield || !r.quiet
	r.settle()
}

func (r *Reactor) handle(fd int, ev netpoll.IOEvent) {
	f := r.slots[fd].current
	if f == nil || r.stopping {
		r.stats.Stale++
		return
	}
	r.stats.Events++
	var got Events
	if ev&netpoll.ReadEvents != 0 {
		got = Readable
	}
	if ev&netpoll.WriteEvents != 0 {
		got |= Writable
	}
	if ev&netpoll.ErrEvents != 0 {
		got = Readable | Writable
	}
	defer r.contain(f.handler)
	f.handler.HandleEvents(got)
}
