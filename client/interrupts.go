package client

import (
	"context"
	"math"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// Interrupt tells that a vector was raised.
type Interrupt struct {
	Vector int
	Count  uint64 // how often since the last time it was delivered
}

// Interrupts receives the interrupts of some vectors: see Device.Interrupts. Its methods may be called from any goroutine but
// the reactor's; each interrupt is delivered once, to one of those who wait.
type Interrupts struct {
	index codec.IRQIndex
	start int
	wake  chan struct{} // a token: something is ready
	done  chan struct{} // closed by release

	life    sync.Mutex // held while vectors are registered with a reactor; taken before mu
	vectors []irqVector

	mu     sync.Mutex
	device *Device
	ready  []int // vectors with a count, each once, in the order of their arrival
	closed bool

	feed sync.Once
	c    chan Interrupt
	fed  chan struct{} // closed when nobody sends to c any more
}

// irqVector is one of the vectors; poll belongs to the reactor.
type irqVector struct {
	set   *Interrupts
	n     int
	fd    int
	poll  *reactor.FD
	count uint64 // guarded by set.mu
}

// Interrupts has the device signal count vectors of an index, from start on, to this program, which receives them with Wait or
// from C. No goroutine waits for a vector: the reactor reads the eventfds and adds up what a slow receiver has not taken yet.
//
// After an INTx has come the device keeps it masked: handle its cause, then call UnmaskIRQ. Close ends the subscription, and so
// does Close of the device. Reattach carries it over to the new session.
func (d *Device) Interrupts(ctx context.Context, index codec.IRQIndex, start, count int) (*Interrupts, error) {
	if start < 0 || count <= 0 {
		return nil, invalid("%d vectors of %s from %d on", count, index, start)
	}
	s := &Interrupts{
		index: index, start: start, device: d, vectors: make([]irqVector, count),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	fds := make([]int, count)
	for i := range fds {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err == nil {
			_, err = reactor.DrainShared(fd) // some kernels cannot
		}
		s.vectors[i] = irqVector{set: s, n: start + i, fd: fd}
		fds[i] = fd
		if err != nil {
			reactor.CloseFDs(fds[:i+1])
			return nil, os.NewSyscallError("eventfd", err)
		}
	}
	err := s.register(d)
	if err == nil {
		err = d.EnableIRQ(ctx, index, start, fds...)
	}
	if err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// register has the device's reactor read the eventfds, and the device release them when it is closed.
func (s *Interrupts) register(d *Device) error {
	s.life.Lock()
	defer s.life.Unlock()
	return s.registerLocked(d)
}

func (s *Interrupts) registerLocked(d *Device) error {
	if !d.subscriptions.add(s) {
		return ErrClosed
	}
	var err error
	if e := d.conn.reactor.Do(func() {
		for i := range s.vectors {
			v := &s.vectors[i]
			if v.poll, err = d.conn.reactor.Add(v.fd, reactor.Readable, v); err != nil {
				return
			}
		}
	}); e != nil {
		err = e
	}
	return err
}

// unregister ends register.
func (s *Interrupts) unregister(d *Device) {
	d.subscriptions.remove(s)
	remove := func() {
		for i := range s.vectors {
			if v := &s.vectors[i]; v.poll != nil {
				_ = v.poll.Remove()
				v.poll = nil
			}
		}
	}
	if d.conn.reactor.Do(remove) != nil {
		<-d.conn.reactor.Done()
		remove()
	}
}

// move carries the subscription over to a device on which the eventfds are assigned already.
func (s *Interrupts) move(to *Device) error {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	from, closed := s.device, s.closed
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.unregister(from)
	err := s.registerLocked(to)
	s.mu.Lock()
	s.device = to
	s.mu.Unlock()
	return err
}

// HandleEvents runs on the reactor.
func (v *irqVector) HandleEvents(reactor.Events) {
	n, err := reactor.DrainShared(v.fd)
	if err != nil && v.poll != nil {
		_ = v.poll.Remove()
		v.poll = nil
	}
	if n == 0 {
		return
	}
	s := v.set
	s.mu.Lock()
	if v.count == 0 {
		s.ready = append(s.ready, v.n-s.start)
	}
	if v.count += n; v.count < n {
		v.count = math.MaxUint64 // 0 would say that it is not ready
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Interrupts) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns what is ready, if anything is, and the device that the next one will come from.
func (s *Interrupts) take() (i Interrupt, ok bool, d *Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return i, false, s.device
	}
	v := &s.vectors[s.ready[0]]
	s.ready = slices.Delete(s.ready, 0, 1)
	i = Interrupt{v.n, v.count}
	v.count = 0
	if len(s.ready) > 0 {
		s.signal() // for the next one who waits
	}
	return i, true, s.device
}

// Wait waits for the next interrupt.
//
// Errors: ctx's, why the session has ended (after Reattach one can wait again), or ErrClosed.
func (s *Interrupts) Wait(ctx context.Context) (Interrupt, error) {
	for {
		i, ok, d := s.take()
		if ok {
			return i, nil
		}
		select {
		case <-s.wake:
			continue
		default:
		}
		select {
		case <-s.done:
			return i, ErrClosed
		default:
		}
		if err := d.Err(); err != nil {
			return i, err
		}
		select {
		case <-s.wake:
		case <-s.done:
		case <-d.Done():
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
}

// C is a channel on which the interrupts come. It is closed by Close and by the device's; when the session merely ends it stays
// open, for Reattach. A vector that is raised again before it was received comes once, with the sum.
func (s *Interrupts) C() <-chan Interrupt {
	s.feed.Do(func() {
		s.c, s.fed = make(chan Interrupt), make(chan struct{})
		go s.send()
	})
	return s.c
}

// send is the goroutine behind C, one for all vectors.
func (s *Interrupts) send() {
	defer close(s.fed)
	defer close(s.c)
	for {
		i, ok, _ := s.take()
		if !ok {
			select {
			case <-s.wake:
				continue
			case <-s.done:
				return
			}
		}
		select {
		case s.c <- i:
		case <-s.done:
			return
		}
	}
}

// Close takes the eventfds away from the device, unless the session has ended, and releases them whatever the server says.
// Closing again does nothing.
func (s *Interrupts) Close(ctx context.Context) error {
	s.mu.Lock()
	d, closed := s.device, s.closed
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := d.UnassignIRQ(ctx, s.index, s.start, len(s.vectors))
	if d.Err() != nil {
		err = nil
	}
	s.release()
	return err
}

// release ends the subscription on this side.
func (s *Interrupts) release() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	closed, d := s.closed, s.device
	s.closed = true
	s.mu.Unlock()
	if closed {
		return
	}
	s.unregister(d)
	close(s.done)
	s.feed.Do(func() {
		s.c, s.fed = make(chan Interrupt), make(chan struct{})
		close(s.c)
		close(s.fed)
	})
	<-s.fed
	for i := range s.vectors {
		_ = unix.Close(s.vectors[i].fd)
	}
}

// subscriptions are the Interrupts of a device.
type subscriptions struct {
	mu     sync.Mutex
	all    []*Interrupts
	closed bool
}

// add is false once the device is closed.
func (t *subscriptions) add(s *Interrupts) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.all = append(t.all, s)
	}
	return !t.closed
}

func (t *subscriptions) remove(s *Interrupts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = slices.DeleteFunc(t.all, func(other *Interrupts) bool { return other == s })
}

func (t *subscriptions) list() []*Interrupts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all)
}

// close releases all of them, for good.
func (t *subscriptions) close() {
	t.mu.Lock()
	t.closed = true
	all := slices.Clone(t.all)
	t.mu.Unlock()
	for _, s := range all {
		s.release()
	}
}
