package link

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// linkChanged is the watcher's key of the socket that tells of changes to interfaces; the
// queues have their numbers.
const linkChanged = -1

// tapPort is a card's side of a tap device.
type tapPort struct {
	tap    *tap
	card   Card
	watch  *watcher
	queues []*tapQueue
	// senders are made by whoever needs one first.
	senders [MaxPairs]*tapSender
	counts  counters
	pairs   atomic.Int32 // that the driver uses
	starts  atomic.Uint32
	up      atomic.Bool // the interface, as the card was told

	mu     sync.Mutex // what the kernel is told, which may take a while
	closed bool       // under mu

	carrier sync.Mutex // changes of up
	gone    bool       // the interface was deleted
	silent  bool       // the card is told nothing any more
}

func newTapPort(t *tap, c Card) (*tapPort, error) {
	p := &tapPort{tap: t, card: c}
	p.up.Store(true)
	var err error
	if p.watch, err = newWatcher(t.opt.Reactor, p.event); err != nil {
		return nil, err
	}
	for i, fd := range t.fds {
		p.queues = append(p.queues, newTapQueue(p, fd, int32(i)))
	}
	if err := p.enroll(); err != nil {
		p.watch.close()
		return nil, err
	}
	p.lookCarrier()
	if err := p.watch.start(); err != nil {
		p.watch.close()
		return nil, err
	}
	return p, nil
}

// enroll makes all descriptors known to the watcher. A queue has to be in service then:
// one that is not is no longer watched.
func (p *tapPort) enroll() error {
	if p.tap.news >= 0 {
		if err := p.watch.add(p.tap.news, linkChanged); err != nil {
			return err
		}
		if err := p.watch.arm(p.tap.news, linkChanged, unix.EPOLLIN); err != nil {
			return err
		}
	}
	for i, q := range p.queues {
		if i > 0 {
			if err := attachTapQueue(q.fd, true); err != nil {
				return err
			}
		}
		err := p.watch.add(q.fd, q.key)
		if i > 0 {
			_ = attachTapQueue(q.fd, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// event is told of a descriptor that is ready, on the loop.
func (p *tapPort) event(key int32, events uint32) {
	if key == linkChanged {
		drainLinkNews(p.tap.news)
		_ = p.watch.arm(p.tap.news, linkChanged, unix.EPOLLIN)
		p.lookCarrier()
		return
	}
	q := p.queues[key]
	if q.fired(events)&unix.EPOLLOUT != 0 {
		p.lookCarrier()
	}
	// Pairs beyond the queues of the device send through those as well.
	for pair := int(key); pair < max(int(p.pairs.Load()), int(key)+1); pair += len(p.queues) {
		p.card.Wake(pair)
	}
}

// lookCarrier tells the card whether the interface is up, if that has changed.
func (p *tapPort) lookCarrier() {
	p.carrier.Lock()
	defer p.carrier.Unlock()
	if p.silent || p.gone {
		return
	}
	up, gone := tapState(p.queues[0].fd)
	if gone {
		p.gone, up = true, false
		for _, q := range p.queues {
			q.on.Store(false)
		}
		p.tap.opt.Logger.Warn("the tap interface was deleted", "interface", p.tap.name)
	}
	if up != p.up.Load() {
		p.up.Store(up)
		p.card.SetCarrier(up)
	}
	if !up && !gone {
		p.queues[0].arm(unix.EPOLLOUT) // comes when it is up
	}
}

// SetOffloads puts the queues of the driver's pairs into service and the others out of it.
func (p *tapPort) SetOffloads(o vnet.Offloads, pairs int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.queues[0]
	if p.closed || !first.on.Load() {
		return
	}
	if pairs == 0 {
		_ = setTapCarrier(first.fd, false)
	} else if p.pairs.Load() == 0 {
		p.starts.Add(1)
		first.drain()
	}
	p.pairs.Store(int32(pairs))
	if !p.tap.uso {
		o &^= vnet.OffloadUSO4 | vnet.OffloadUSO6
	}
	if err := setTapOffloads(first.fd, o); err != nil {
		p.tap.opt.Logger.Warn("the tap interface does not take the offloads", "interface", p.tap.name, "error", err)
	}
	for i, q := range p.queues[1:] {
		// Who reads from a queue that is out of service gets an error, which means that the
		// interface is gone if the queue should be in service.
		switch on := i+1 < pairs; {
		case on == q.on.Load():
		case !on:
			q.on.Store(false)
			_ = attachTapQueue(q.fd, false)
		case attachTapQueue(q.fd, true) == nil:
			q.on.Store(true)
			q.arm(unix.EPOLLIN) // its worker may sleep, and could not ask for it
		}
	}
	if pairs > 0 {
		_ = setTapCarrier(first.fd, true)
	}
}

// Close detaches the card.
func (p *tapPort) Close() error {
	p.SetOffloads(vnet.OffloadNone, 0)
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	p.carrier.Lock()
	p.silent = true
	p.carrier.Unlock()
	p.watch.close()
	if first {
		p.tap.leave()
	}
	return nil
}

// Stats reads the counters.
func (p *tapPort) Stats() Stats { return p.counts.stats() }
