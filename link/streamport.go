package link

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
	"vfiouser/link/vnet"
)

// newPeer is the watcher's key of a listening socket; connections are numbered.
const newPeer = -1

// losePause is how long a worker has to come back from a connection that is to be closed.
const losePause = time.Millisecond

// announcePause is how long a driver has to find out that there is somebody again, before it
// is asked to make itself known. Linux, told of both at once, does that first, while what it
// sends is still dropped.
const announcePause = time.Second / 2

// streamPort is a card's side of a stream. The connection comes and goes on the reactor's
// loop; frames are sent and received by the card's workers.
type streamPort struct {
	link   *stream
	card   Card
	watch  *watcher
	counts counters
	pairs  atomic.Int32
	live   atomic.Bool // the connection works
	conn   atomic.Pointer[ready]
	rx     streamReceiver
	tx     streamSender
	failed failTask

	// The rest belongs to the loop.
	dialing int // socket that is being connected, or -1
	left    []unix.Sockaddr
	key     int32 // of the latest connection
	peers   int   // that there were
	since   time.Time
	pause   time.Duration
	timer   *reactor.Timer
	resting bool // until the timer comes

	announcing *reactor.Timer // nil before it is needed

	warned bool
	closed bool

	asking sync.WaitGroup // for addresses
	ctx    context.Context
	cancel context.CancelFunc
}

// failTask tells the loop that the connection is of no use any more.
type failTask struct {
	p   *streamPort
	why atomic.Pointer[error]
}

// Run is for the reactor.
func (t *failTask) Run() {
	if p := t.p; p.conn.Load() != nil && !p.live.Load() {
		p.lose(*t.why.Load())
	}
}

// fail is called by whoever finds that the connection is of no use.
func (p *streamPort) fail(why error) {
	if p.live.Load() {
		p.failed.why.Store(&why)
		p.live.Store(false)
		p.link.opt.Reactor.Post(&p.failed)
	}
}

func newStreamPort(s *stream, c Card) (*streamPort, error) {
	p := &streamPort{link: s, card: c, dialing: -1}
	p.failed.p = p
	p.rx.init(p)
	p.tx.init(p)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var err error
	if p.watch, err = newWatcher(s.opt.Reactor, p.event); err != nil {
		return nil, err
	}
	if s.listener >= 0 {
		err = p.watch.add(s.listener, newPeer)
	}
	if err == nil {
		err = p.watch.start()
	}
	if err != nil {
		p.watch.close()
		return nil, err
	}
	c.SetCarrier(false)
	p.watch.sync(p.begin)
	return p, nil
}

// announceSoon has the driver make itself known to the peer, if that stays.
func (p *streamPort) announceSoon() {
	if p.announcing == nil {
		p.announcing = p.link.opt.Reactor.AfterFunc(announcePause, func() {
			if p.conn.Load() != nil {
				p.card.Announce()
			}
		})
		return
	}
	p.announcing.Reset(announcePause)
}

// lose closes the connection, or tries so again in a moment.
func (p *streamPort) lose(why error) {
	p.live.Store(false)
	if !p.hangUp() {
		p.after(losePause)
		return
	}
	if errors.Is(why, io.EOF) {
		p.link.opt.Logger.Info("the peer of a stream has left", "stream", p.link.place.String())
	} else {
		p.link.opt.Logger.Warn("a stream has ended", "stream", p.link.place.String(), "error", why)
	}
	p.card.SetCarrier(false)
	if time.Since(p.since) >= max(p.pause, firstPause) {
		p.pause = 0
		if p.link.listener >= 0 {
			p.begin()
			return
		}
	}
	p.again()
}

// hangUp closes the connection unless a worker is at it. That one comes back from its system
// call when it can: it may have to wait for a guest's memory.
func (p *streamPort) hangUp() bool {
	if !p.rx.mu.TryLock() {
		return false
	}
	defer p.rx.mu.Unlock()
	if !p.tx.mu.TryLock() {
		return false
	}
	defer p.tx.mu.Unlock()
	c := p.conn.Swap(nil)
	c.retire()
	_ = unix.Close(c.fd)
	p.rx.reset()
	p.tx.reset()
	return true
}

// event is told of a descriptor that is ready.
func (p *streamPort) event(key int32, events uint32) {
	switch c := p.conn.Load(); {
	case key == newPeer && p.resting: // it is armed again when that is over
	case key == newPeer:
		p.accept()
	case key != p.key:
	case p.dialing >= 0:
		p.dialed()
	case c != nil:
		p.serve(c, c.fired(events))
	}
}

// serve does what the events of a connection ask for.
func (p *streamPort) serve(c *ready, events uint32) {
	pairs := int(p.pairs.Load())
	if events&unix.EPOLLOUT != 0 {
		if pairs == 0 { // no worker does
			p.tx.drain()
			if p.tx.stuck(c) {
				c.arm(unix.EPOLLOUT)
			}
		}
		for q := range pairs {
			p.card.Wake(q)
		}
	}
	if events&unix.EPOLLIN == 0 {
		return
	}
	if pairs > 0 {
		p.card.Wake(0)
		return
	}
	// No worker polls. What comes is dropped by the card, and the end is seen here.
	p.rx.poll()
	c.arm(unix.EPOLLIN)
}

// Poll hands the card what has arrived, for queue 0: a stream has one order.
func (p *streamPort) Poll(q int) int {
	if q != 0 {
		return 0
	}
	p.tx.drain()
	return p.rx.poll()
}

// Arm has the card woken when something arrives.
func (p *streamPort) Arm(q int) bool { return q == 0 && p.rx.arm() }

// Send writes the frames to the peer.
func (p *streamPort) Send(_ int, frames []vnet.Frame) int { return p.tx.send(frames) }

// SetOffloads takes note of whether there is a driver. A stream brings complete frames.
func (p *streamPort) SetOffloads(_ vnet.Offloads, pairs int) {
	p.pairs.Store(int32(pairs))
	if c := p.conn.Load(); c != nil && pairs == 0 {
		c.arm(unix.EPOLLIN)
	}
}

// Stats reads the counters.
func (p *streamPort) Stats() Stats { return p.counts.stats() }

// Close leaves the peer.
func (p *streamPort) Close() error {
	first := false
	p.watch.sync(func() {
		first = !p.closed
		p.closed = true
		if p.announcing != nil {
			p.announcing.Stop()
		}
		if p.timer != nil {
			p.timer.Stop()
		}
		if p.dialing >= 0 {
			p.watch.remove(p.dialing)
			_ = unix.Close(p.dialing)
			p.dialing = -1
		}
		if p.conn.Load() != nil { // and nobody polls
			p.live.Store(false)
			p.hangUp()
		}
	})
	if !first {
		return nil
	}
	p.cancel()
	p.asking.Wait()
	p.watch.close()
	p.link.leave()
	return nil
}
