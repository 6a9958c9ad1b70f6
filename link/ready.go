package link

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxMisses is how many polls go by without a look at a descriptor where nothing was found.
const maxMisses = 15

// ready is what a worker, which polls, and the reactor, which waits, know of one descriptor.
// While the worker polls it looks for itself, less and less often if nothing comes. When it
// goes to sleep it arms the watcher, and then there is nothing to be read until that says so.
type ready struct {
	watch *watcher
	fd    int
	key   int32

	mu      sync.Mutex
	want    atomic.Uint32 // events that the watcher is armed for; changed under mu
	gone    bool          // the descriptor is closed, and its number may be another's
	blocked atomic.Bool   // nothing more can be written, and EPOLLOUT is wanted

	look atomic.Bool // the next poll does, because an answer may come

	// These are the poller's.
	misses int // how often in a row nothing was there
	skip   int // polls until the next look
}

// arm asks for an event beside those that are asked for already. Any goroutine.
func (r *ready) arm(event uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if want := r.want.Load() | event; want != r.want.Load() {
		r.set(want)
	}
}

// set is called with the lock held. A descriptor that cannot be armed is gone.
func (r *ready) set(want uint32) {
	if r.gone {
		want = 0
	}
	r.want.Store(want)
	if want != 0 && r.watch.arm(r.fd, r.key, want) != nil {
		r.want.Store(0)
	}
}

// fired takes note of events, and returns those that were asked for.
func (r *ready) fired(events uint32) uint32 {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		events |= unix.EPOLLIN | unix.EPOLLOUT
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	want := r.want.Load()
	if want&events&unix.EPOLLOUT != 0 {
		r.blocked.Store(false)
	}
	r.set(want &^ events)
	return want & events
}

// retire ends the watch, before the descriptor is closed.
func (r *ready) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.want.Store(0)
	r.watch.remove(r.fd)
}

// block is called when nothing more can be written.
func (r *ready) block() {
	r.blocked.Store(true)
	r.arm(unix.EPOLLOUT)
}

// quiet tells whether a poll need not look.
func (r *ready) quiet() bool {
	if r.want.Load()&unix.EPOLLIN != 0 {
		return true
	}
	if r.look.Load() {
		r.look.Store(false)
		return false
	}
	if r.skip > 0 {
		r.skip--
		return true
	}
	return false
}

// nudge is called when something was sent.
func (r *ready) nudge() {
	if !r.look.Load() {
		r.look.Store(true)
	}
}

// missed and hit are called after a look.
func (r *ready) missed() {
	r.misses = min(2*r.misses+1, maxMisses)
	r.skip = r.misses
}

func (r *ready) hit() { r.misses = 0 }

// sleep arms the watcher for what is to be read.
func (r *ready) sleep() {
	r.misses, r.skip = 0, 0
	r.arm(unix.EPOLLIN)
}
