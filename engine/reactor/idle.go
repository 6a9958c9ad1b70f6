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
// sleeps (and spins, if it is told to) at the end of its callback instead, by polling the epoll descriptor itself,
// and goes back to netpoll when something is ready. It yields there too, unless the handler has said that it need not.
//
// That is sound although the batch that netpoll works on may hold more events. They are level-triggered, so the kernel
// still has them on its ready list, and the poll returns at once. The only edge-triggered descriptor is the loop's own
// eventfd, and while its event is on the way the state says signalled.

// maxHot is how often in a row the descriptor that was served last is served without asking the poller for others: the
// client of a request is the one to be heard of next, and with nobody else around that saves a system call each time.
const maxHot = 16

// maxUnspun is how many sleeps in a row begin without a spin, when spinning has been in vain.
const maxUnspun = 255

// idler decides how the loop waits.
type idler struct {
	epoll int // netpoll's descriptor; -1: unknown, leave the waiting to netpoll
	spin  time.Duration

	fds    [2]unix.PollFd
	unspun int // sleeps begun without a spin after the last spin in vain
	skip   int // sleeps still to begin without a spin
}

// epollFD returns the descriptor of p, which netpoll has no method for, or -1.
func epollFD(p *netpoll.Poller) int {
	fd := reflect.ValueOf(p).Elem().FieldByName("fd")
	if !fd.IsValid() || !fd.CanInt() {
		return -1
	}
	return int(fd.Int())
}

// idle waits until something may be ready, or returns at once if that is likely the case anyway. A return too early costs
// no more than netpoll's own way to wait. It is true if fd, which was served last, is readable again.
func (r *Reactor) idle(fd int) (hot bool) {
	w := &r.idler
	if w.epoll < 0 || r.state.Load() != 0 {
		return false
	}
	if r.yield || w.spin > 0 {
		if rawReadable(w.epoll) {
			return false
		}
		if r.yield {
			runtime.Gosched()
		}
		if w.spin > 0 && r.spinning() {
			return false
		}
	}
	r.stats.Sleeps++
	w.fds[0] = unix.PollFd{Fd: int32(w.epoll), Events: unix.POLLIN}
	w.fds[1] = unix.PollFd{Fd: -1}
	if f := r.slots[fd].current; !r.yield && f != nil && f.events&Readable != 0 {
		w.fds[1] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	_, err := unix.Ppoll(w.fds[:], nil, nil)
	return err == nil && w.fds[1].Revents != 0
}

// Quiet says that the calling handler has made no goroutine runnable: it answered on a socket, or rang an eventfd. The
// loop then sleeps without yielding first. Whoever sends to a channel or releases a lock must not say it: the goroutine
// that waits there stands in the queue of the loop's own P, and a system call keeps that for some 20 microseconds.
// It holds for the current event; without it the loop yields. Loop only, from handlers.
func (r *Reactor) Quiet() { r.yield = false }

// spinning looks again and again for the time configured and tells whether that was any use. If it was not, the next
// spins are left out, more each time: a peer on the same core cannot run while the loop spins.
func (r *Reactor) spinning() bool {
	w := &r.idler
	if w.skip > 0 {
		w.skip--
		return false
	}
	for end := r.timers.now() + w.spin; r.timers.now() < end; {
		if rawReadable(w.epoll) {
			w.unspun = 0
			return true
		}
	}
	w.unspun = min(2*w.unspun+1, maxUnspun)
	w.skip = w.unspun
	return false
}
