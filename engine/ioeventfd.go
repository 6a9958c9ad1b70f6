package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// IOEventfd is a part of a region at which a client may have the kernel signal an eventfd
// instead of sending REGION_WRITE (VFIO_USER_DEVICE_GET_REGION_IO_FDS, KVM_IOEVENTFD). The
// value that is written is lost. A client that makes no use of it writes as to any other
// part of the region.
type IOEventfd struct {
	// Offset in the region, bytes.
	Offset uint64
	// Size is that of the writes that signal, 1, 2, 4 or 8 bytes; 0: of any size.
	Size uint64
	// Match has only writes of Data signal.
	Match bool
	Data  uint64
	// PIO says that the region is in I/O space.
	PIO bool
	// Event is what is signalled. Several areas, of any of the device's regions, may
	// share one; that takes one descriptor only.
	Event *IOEvent
	// Shadow, if set, has the value left in shared memory before the signal: a kind of
	// area that libvfio-user has and the specification has not. Such an area is for
	// clients that are known to understand it.
	Shadow *IOShadow
}

// IOShadow is where the value goes that is written to an area. FD stays the device's, and
// must be valid as long as the device is registered; Offset is in its file, in bytes.
type IOShadow struct {
	FD     int
	Offset uint64
}

// IOEvent is told when a client signals an area. Signals that come in quick succession may
// be told as one.
type IOEvent struct {
	// Handler is called on the reactor, like a region's Write: it must not block, and
	// while a reset is under way it waits for its end. The eventfd is the engine's, and a
	// new one for each client.
	Handler func(s *Session)
	// FD, without Handler, is an eventfd of the device's own, for example what wakes a
	// thread of its own. It must be valid as long as the device is registered. Clients
	// share its file description: each of them can read it, fill it and make it blocking,
	// after it is gone, too. So wait for it with poll(2), read it with DrainEventfd, and
	// never write to it.
	FD int
}

// DrainEventfd takes the counter of an eventfd that is shared with a client down to zero
// and returns what it was. It never blocks, whatever the client did to the descriptor.
func DrainEventfd(fd int) (uint64, error) { return reactor.DrainShared(fd) }

// checkIOEventfds checks what a region declares.
func (r *Region) checkIOEventfds() error {
	for _, a := range r.IOEventfds {
		width := max(a.Size, 1)
		switch {
		case a.Size > 8 || a.Size&(a.Size-1) != 0:
			return fmt.Errorf("ioeventfd of %d bytes", a.Size)
		case a.Match && a.Size == 0:
			return errors.New("an ioeventfd of any size cannot match data")
		case a.Offset > r.Size || width > r.Size-a.Offset:
			return fmt.Errorf("ioeventfd at %#x leaves the region", a.Offset)
		case a.Event == nil:
			return fmt.Errorf("ioeventfd at %#x has no event", a.Offset)
		case r.Write == nil:
			return errors.New("a client may write by message where an ioeventfd is: the region needs Write")
		}
		if a.Event.Handler == nil {
			if err := checkFD(a.Event.FD); err != nil {
				return fmt.Errorf("event of the ioeventfd at %#x: %w", a.Offset, err)
			}
		}
		if a.Shadow != nil {
			if err := checkFD(a.Shadow.FD); err != nil {
				return fmt.Errorf("shadow of the ioeventfd at %#x: %w", a.Offset, err)
			}
		}
	}
	return nil
}

func checkFD(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err
}

// ioEvent is an IOEvent with a Handler as one client has it.
type ioEvent struct {
	session *Session
	event   *IOEvent
	fd      *reactor.Eventfd
	poll    *reactor.FD
	late    bool // it was signalled while a command was not finished
}

// ioEvents are a session's, made when the client first asks for them.
type ioEvents struct{ open []*ioEvent }

// descriptor is what the client gets for an event.
func (e *ioEvents) descriptor(s *Session, event *IOEvent) (int, error) {
	if event.Handler == nil {
		return event.FD, nil
	}
	for _, o := range e.open {
		if o.event == event {
			return o.fd.FD(), nil
		}
	}
	fd, err := reactor.NewEventfd()
	if err != nil {
		return -1, err
	}
	o := &ioEvent{session: s, event: event, fd: fd}
	if _, err = reactor.DrainShared(fd.FD()); err == nil { // or this kernel cannot read it safely
		o.poll, err = s.engine.reactor.Add(fd.FD(), reactor.Readable, o)
	}
	if err != nil {
		_ = fd.Close()
		return -1, err
	}
	e.open = append(e.open, o)
	return fd.FD(), nil
}

// HandleEvents is called by the reactor.
func (o *ioEvent) HandleEvents(reactor.Events) {
	s := o.session
	n, err := reactor.DrainShared(o.fd.FD())
	switch {
	case err != nil:
		s.drop(fmt.Errorf("ioeventfd: %w", err))
	case n == 0: // the client has read it
	case s.backlog.pending, s.migration.sealed:
		o.late = true
	default:
		s.takeTurn(o.tell)
	}
}

func (o *ioEvent) tell() {
	o.late = false
	o.event.Handler(o.session)
}

// settle tells what was signalled while a command was not finished, or while the device
// could not be accessed.
func (e *ioEvents) settle() {
	for _, o := range e.open {
		if o.late && !o.session.migration.sealed {
			o.tell()
		}
	}
}

// collect tells at once what was signalled and is not noticed yet, before the data path is
// held: a write before a reset or a stop must not take effect after it, or never.
func (e *ioEvents) collect() {
	for _, o := range e.open {
		if n, err := reactor.DrainShared(o.fd.FD()); n > 0 && err == nil {
			o.tell()
		}
	}
}

// forget drops what was signalled while the device could not be accessed: the reset that
// follows undoes it.
func (e *ioEvents) forget() {
	for _, o := range e.open {
		_, _ = reactor.DrainShared(o.fd.FD()) // an error shows again in HandleEvents
		o.late = false
	}
}

func (e *ioEvents) close() {
	for _, o := range e.open {
		_ = o.poll.Remove()
		_ = o.fd.Close()
	}
	e.open = nil
}

// serveGetRegionIOFDs is VFIO_USER_DEVICE_GET_REGION_IO_FDS. Areas whose descriptors the
// client has no room for in one message are left out: it writes there by message.
func (s *Session) serveGetRegionIOFDs(m *message) error {
	var info codec.IOFDs
	if err := info.DecodeRequest(m.payload); err != nil {
		return err
	}
	if info.Index >= uint32(len(s.ep.regions)) || info.ArgSz > maxDataXfer {
		return fmt.Errorf("region %d, argsz %d: %w", info.Index, info.ArgSz, unix.EINVAL)
	}
	r := &s.ep.regions[info.Index]
	if r.Size == 0 {
		return fmt.Errorf("region %d is not there: %w", info.Index, unix.EINVAL)
	}
	argsz := info.ArgSz
	fds := fdList{limit: int(s.peer.MaxMsgFDs)}
	for i := range r.IOEventfds {
		area, ok, err := s.ioArea(&r.IOEventfds[i], &fds)
		if err != nil {
			return fmt.Errorf("ioeventfd: %w", err)
		}
		if ok {
			info.Regions = append(info.Regions, area)
		}
	}
	start := len(s.out.bytes()) - codec.HeaderSize
	s.out.set(info.AppendReply(s.out.bytes(), argsz))
	if len(fds.fds) > 0 && argsz >= info.ArgSz && !m.NoReply() {
		s.out.attach(start, fds.fds)
	}
	return nil
}

// ioArea describes an area; false if there is no room for its descriptors.
func (s *Session) ioArea(a *IOEventfd, fds *fdList) (area codec.IOFD, ok bool, err error) {
	area = codec.IOFD{Offset: a.Offset, Size: a.Size, Type: codec.IOEventfd}
	if a.Match {
		area.Flags, area.Data = codec.IOEventfdDatamatch, a.Data
	}
	if a.PIO {
		area.Flags |= codec.IOEventfdPIO
	}
	fd, err := s.events.descriptor(s, a.Event)
	if err != nil {
		return area, false, err
	}
	before := len(fds.fds)
	if area.FDIndex, ok = fds.index(fd); !ok {
		return area, false, nil
	}
	if a.Shadow != nil {
		area.Type, area.ShadowOffset = codec.IOEventfdShadow, a.Shadow.Offset
		if area.ShadowFDIndex, ok = fds.index(a.Shadow.FD); !ok {
			fds.fds = fds.fds[:before]
			return area, false, nil
		}
	}
	return area, true, nil
}

// fdList is the descriptors of one reply, each of them once.
type fdList struct {
	fds   []int
	limit int
}

// index finds the place of a descriptor, or adds it; false if there is no room.
func (l *fdList) index(fd int) (uint32, bool) {
	for i, have := range l.fds {
		if have == fd {
			return uint32(i), true
		}
	}
	if len(l.fds) >= l.limit {
		return 0, false
	}
	l.fds = append(l.fds, fd)
	return uint32(len(l.fds) - 1), true
}
