package reactor

import (
	"reflect"
	"runtime"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// When nothing is ready, netpoll's loop calls runtime.Gosched before it sleeps in epoll_wait. With an idle P at hand that
// makes the Go scheduler wake a thread to look for work: a fifth of a whole round trip when all share one core. So the loop
// sleeps (and spins, if it is told to) at the end of its callback instead, in an epoll_wait of its own, and serves
// what that returns. It yields there too, unless the handler has said that it need not.
//
// That is sound although the batch that netpoll works on may hold more events. They are level-triggered, so the kernel
// still has them on its ready list and returns them at once; when netpoll comes to them they are spurious, which handlers
// bear. The only edge-triggered descriptor is the loop's own eventfd, and while its event is on the way the state says
// signalled, and the loop goes back to netpoll.

// batch is how many events the loop takes at a time. The kernel's ready list goes round, so none is left out.
const batch = 64

// maxUnspun is how many sleeps in a row begin without a spin, when spinning has been in vain.
const maxUnspun = 255

// The scheduler's monitor takes the P of a goroutine that has run for 10 ms without being scheduled as soon as it finds it
// in a system call, whatever that is, and then looks again every 20 µs for a while. On one core that costs some of a
// client's round trips twice their time. So the loop has itself scheduled in time; it looks at the clock every so many waits.
const (
	scheduleTime  = 5 * time.Millisecond
	scheduleWaits = 16
)

// idler decides how the loop waits.
type idler struct {
	epoll int // netpoll's descriptor; -1: unknown, leave the waiting to netpoll
	spin  time.Duration

	events    [batch]unix.EpollEvent
	waits     uint
	scheduled time.Duration // when the loop had itself scheduled last
	unspun    int           // sleeps begun without a spin after the last spin in vain
	skip      int           // sleeps still to begin without a spin
}

// epollFD returns the descriptor of p, which netpoll has no method for, or -1.
func epollFD(p *netpoll.Poller) int {
	fd := reflect.ValueOf(p).Elem().FieldByName("fd")
	if !fd.IsValid() || !fd.CanInt() {
		return -1
	}
	return int(fd.Int())
}

// idle waits for events and returns how many it has put into idler.events; 0: ask netpoll.
func (r *Reactor) idle() int {
	w := &r.idler
	if w.epoll < 0 || r.state.Load() != 0 {
		return 0
	}
	if w.waits++; w.waits%scheduleWaits == 0 {
		if now := r.timers.now(); now-w.scheduled > scheduleTime {
			w.scheduled = now
			r.yield = true
		}
	}
	if r.yield || w.spin > 0 {
		if n := w.look(); n > 0 {
			return n
		}
		if r.yield {
			runtime.Gosched()
			r.yield = false
		}
		if w.spin > 0 {
			if n := r.spinning(); n > 0 {
				return n
			}
		}
	}
	r.stats.Sleeps++
	n, err := unix.EpollWait(w.epoll, w.events[:], -1)
	if err != nil {
		return 0
	}
	return n
}

// look takes the events that are there.
func (w *idler) look() int { return rawEpollWait(w.epoll, w.events[:]) }

// Quiet says that the calling handler has made no goroutine runnable: it answered on a socket, or rang an eventfd. The
// loop then sleeps without yielding first. Whoever sends to a channel or releases a lock must not say it: the goroutine
// that waits there stands in the queue of the loop's own P, and a system call keeps that for some 20 microseconds.
// It holds for the current event; without it the loop yields before it sleeps. Loop only, from handlers.
func (r *Reactor) Quiet() { r.quiet = true }

// spinning looks for events again and again for the time configured. If that was of no use, the next spins are left out,
// more each time: a peer on the same core cannot run while the loop spins.
func (r *Reactor) spinning() int {
	w := &r.idler
	if w.skip > 0 {
		w.skip--
		return 0
	}
	for end := r.timers.now() + w.spin; r.timers.now() < end; {
		if n := w.look(); n > 0 {
			w.unspun = 0
			return n
		}
	}
	w.unspun = min(2*w.unspun+1, maxUnspun)
	w.skip = w.unspun
	return 0
}
