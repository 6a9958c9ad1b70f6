package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
)

// acceptPause is how long an endpoint stops accepting when the process has run out
// of descriptors: the poller is level-triggered and would spin otherwise.
const acceptPause = 100 * time.Millisecond

const (
	// acceptRounds bounds how many connections one event accepts: somebody may connect
	// as quickly as that.
	acceptRounds = 64
	// closeTimeout is how long Close waits at most for descriptors to be closed that
	// the client makes slow to close.
	closeTimeout = time.Second
)

// Endpoint is one device on one socket. A device has one client at a time: a second
// one is accepted and its connection closed at once. After a client is gone the next
// one may come.
type Endpoint struct {
	engine *Engine
	device Device
	desc   Description
	// regions are all of the device's by index, the ones of its own included.
	regions []Region
	log     *slog.Logger
	addr    address

	mu      sync.Mutex // Start and Close
	started bool
	closed  bool
	done    chan struct{} // closed when everything is released

	// The rest belongs to the reactor.
	listener listener
	only     bool        // the inherited descriptor was a connection: no other client can come
	poll     *reactor.FD // of the listener
	session  *Session
	waiting  int // a connection that came while the last client's session was being released, or -1
	closing  bool
	late     *reactor.Timer // limits how long Close waits for descriptors; nil before
	hurry    bool           // that time is over
	finished bool           // Close returns
	foreign  foreign
	full     bool // no connection is accepted until foreign is idle
}

// Register makes an endpoint for a device on the unix socket path, which is the
// endpoint's identity. Nothing is opened before Start.
func (e *Engine) Register(path string, d Device) (*Endpoint, error) {
	return e.register(address{path: path}, d)
}

// RegisterFD makes an endpoint on an inherited descriptor: a listening unix stream
// socket (socket activation), or a connected one, which is then the only client.
// The endpoint owns the descriptor from here on, whatever is returned.
func (e *Engine) RegisterFD(fd int, d Device) (*Endpoint, error) {
	ep, err := e.register(address{fd: fd, inherited: true}, d)
	if err != nil {
		_ = unix.Close(fd)
	}
	return ep, err
}

func (e *Engine) register(a address, d Device) (*Endpoint, error) {
	desc, err := d.Describe()
	if err != nil {
		return nil, fmt.Errorf("engine: describe device for %s: %w", a, err)
	}
	ep := &Endpoint{
		engine: e, device: d, desc: desc, addr: a,
		log:     e.log.With("endpoint", a.String()),
		done:    make(chan struct{}),
		waiting: -1,
	}
	ep.foreign = foreign{reactor: e.reactor, idle: ep.settle}
	if err := ep.complete(); err != nil {
		return nil, fmt.Errorf("engine: device for %s: %w", a, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	for _, other := range e.endpoints {
		if other.addr == a {
			return nil, fmt.Errorf("engine: %s is registered already: %w", a, unix.EADDRINUSE)
		}
	}
	e.endpoints = append(e.endpoints, ep)
	return ep, nil
}

// Path returns the socket path, or "" for an inherited descriptor.
func (ep *Endpoint) Path() string { return ep.addr.path }

// Engine is the engine that the endpoint is registered with.
func (ep *Endpoint) Engine() *Engine { return ep.engine }

// Connected says whether the device has a client now. It asks the reactor: not to be called on it.
func (ep *Endpoint) Connected() (connected bool) {
	_ = ep.engine.reactor.Do(func() { connected = ep.session != nil }) // a reactor that has ended has no clients
	return connected
}

// Start listens: clients may come as soon as it returns. A socket file that a dead
// server left behind is replaced; one that a live server listens on is an error
// (EADDRINUSE).
func (ep *Endpoint) Start() error {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.closed {
		return ErrClosed
	}
	if ep.started {
		return fmt.Errorf("engine: %s is started already", ep.addr)
	}
	l, err := ep.addr.open()
	if err != nil {
		return err
	}
	ep.started = true
	ready := make(chan error, 1)
	ep.engine.reactor.PostFunc(func() {
		if l.connected {
			ep.only = true
			ep.begin(l.fd)
			ready <- nil
			return
		}
		ep.listener = l
		ep.poll, err = ep.engine.reactor.Add(l.fd, reactor.Readable, (*acceptor)(ep))
		ready <- err
	})
	if err := <-ready; err != nil {
		l.close()
		ep.started = false
		return fmt.Errorf("engine: %s: %w", ep.addr, err)
	}
	return nil
}

// Done is closed when the endpoint is, and nothing of a client is left: after Close, or
// because it was made of a connection (RegisterFD) that has ended.
func (ep *Endpoint) Done() <-chan struct{} { return ep.done }

// Close stops listening, removes the socket file, ends the client's session after
// its I/O in flight is done, and waits for all that. It is idempotent.
func (ep *Endpoint) Close() error {
	ep.mu.Lock()
	first := !ep.closed
	ep.closed = true
	started := ep.started
	ep.mu.Unlock()
	switch {
	case first && started:
		ep.engine.reactor.PostFunc(ep.close)
	case first:
		if ep.addr.inherited {
			_ = unix.Close(ep.addr.fd)
		}
		ep.finish()
	}
	<-ep.done
	return nil
}

// close runs on the reactor.
func (ep *Endpoint) close() {
	ep.closing = true
	ep.late = ep.engine.reactor.AfterFunc(closeTimeout, func() {
		ep.hurry = true
		ep.settle()
	})
	if ep.poll != nil {
		ep.poll.Remove()
		ep.listener.file.Remove()
		ep.foreign.close(ep.listener.fd)
	}
	ep.dropWaiting()
	if ep.session != nil {
		ep.session.drop(ErrClosed)
	}
	ep.settle()
}

func (ep *Endpoint) finish() {
	ep.finished = true
	ep.engine.remove(ep)
	close(ep.done)
}

func (ep *Endpoint) dropWaiting() {
	if ep.waiting >= 0 {
		ep.foreign.hangUp(ep.waiting)
		ep.waiting = -1
	}
}

// acceptor is the endpoint as the handler of its listening socket.
type acceptor Endpoint

// HandleEvents accepts what is in the backlog.
func (a *acceptor) HandleEvents(reactor.Events) {
	ep := (*Endpoint)(a)
	for range acceptRounds {
		if ep.foreign.full() {
			ep.full = true
			ep.listen(0)
			return
		}
		fd, _, err := unix.Accept4(ep.listener.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == nil:
			ep.admit(fd)
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EAGAIN):
			return
		default:
			ep.pauseAccept(err)
			return
		}
	}
}

func (ep *Endpoint) pauseAccept(err error) {
	ep.log.Error("cannot accept a client", "err", err)
	ep.listen(0)
	ep.engine.reactor.AfterFunc(acceptPause, func() { ep.listen(reactor.Readable) })
}

// listen accepts connections (Readable) or leaves them in the backlog (0).
func (ep *Endpoint) listen(ev reactor.Events) {
	if ep.poll == nil || ep.closing {
		return
	}
	if err := ep.poll.Modify(ev); err != nil {
		ep.log.Error("cannot change whether connections are accepted", "err", err)
	}
}

// admit decides what becomes of a new connection.
func (ep *Endpoint) admit(fd int) {
	switch {
	case ep.session == nil:
		ep.begin(fd)
	case ep.session.gone():
		// The last client has hung up; its successor waits until all is released.
		ep.dropWaiting()
		ep.waiting = fd
	default:
		ep.log.Warn("refused a second client")
		ep.foreign.hangUp(fd)
	}
}

func (ep *Endpoint) begin(fd int) {
	s, err := newSession(ep, fd)
	if err != nil {
		ep.log.Error("cannot begin a session", "err", err)
		ep.foreign.hangUp(fd)
		return
	}
	ep.session = s
}

// settle is called when something may have come to its end: the session's memory is
// released, or the client's descriptors are closed. When both are, the next client may
// come. Without that wait a client could leave behind one goroutine that cannot close
// its descriptors, connect again, and leave the next.
func (ep *Endpoint) settle() {
	if !ep.foreign.full() {
		ep.goOn()
	}
	switch s := ep.session; {
	case ep.finished, s != nil && !s.released:
		return
	case ep.foreign.busy() && !ep.hurry:
		return
	}
	ep.session = nil
	switch fd := ep.waiting; {
	case ep.closing:
		ep.late.Stop()
		ep.finish()
	case ep.only:
		ep.finish()
	case fd >= 0:
		ep.waiting = -1
		ep.begin(fd)
	}
}

// goOn takes from clients again what they sent meanwhile.
func (ep *Endpoint) goOn() {
	if ep.full {
		ep.full = false
		ep.listen(reactor.Readable)
	}
	if s := ep.session; s != nil && s.state != stateDropped {
		s.watch()
		if s.twin != nil {
			s.twin.watch()
		}
	}
}

// complete checks the description and fills in what the engine serves itself.
func (ep *Endpoint) complete() error {
	d := &ep.desc
	if d.Config == nil {
		return errors.New("no configuration space")
	}
	d.Regions[RegionConfig] = Region{
		Size:  uint64(d.Config.Size()),
		Read:  ep.readConfig,
		Write: ep.writeConfig,
	}
	for _, place := range []func() error{ep.placeMSIX, d.placeROM, d.checkBARs} {
		if err := place(); err != nil {
			return err
		}
	}
	ep.regions = append(d.Regions[:], d.Extra...)
	for i := range ep.regions {
		r := &ep.regions[i]
		err := r.check()
		switch typed := r.Type != (RegionType{}); {
		case i < NumRegions && typed:
			err = fmt.Errorf("type %+v is for regions of the device's own", r.Type)
		case i >= NumRegions && !typed:
			err = errors.New("a region of the device's own needs a type")
		}
		if err != nil {
			return fmt.Errorf("region %d: %w", i, err)
		}
	}
	return nil
}

func (r *Region) check() error {
	end := uint64(0)
	for _, a := range r.Areas {
		switch {
		case a.Size == 0 || a.Offset%pageSize != 0 || a.Size%pageSize != 0:
			return fmt.Errorf("mappable area %+v is not made of pages", a)
		case a.Offset < end:
			return fmt.Errorf("mappable area %+v overlaps or is out of order", a)
		case a.Offset > r.Size || a.Size > r.Size-a.Offset:
			return fmt.Errorf("mappable area %+v leaves the region", a)
		}
		end = a.Offset + a.Size
	}
	if len(r.Areas) > 0 && r.Offset%pageSize != 0 {
		return fmt.Errorf("file offset %#x is not a page's", r.Offset)
	}
	return r.checkIOEventfds()
}
