package engine

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
)

// foreign deals with descriptors that clients of an endpoint sent, as far as that may
// take long: whoever closes the last descriptor of a socket that lingers waits for its
// peer, and a question about a file may be one to a file server of the client's. The
// reactor must not do it, and one goroutine does it, so that a client can hold up its own
// endpoint and nothing else. That includes the connections themselves, in which
// descriptors may be on their way.
type foreign struct {
	reactor *reactor.Reactor
	idle    func() // called on the reactor when all is done

	pending atomic.Int32 // descriptors not closed
	mu      sync.Mutex
	queue   []func()
	running bool
}

// maxForeign is how much may be pending before no more is taken from the client.
const maxForeign = 256

// busy says whether anything is pending.
func (f *foreign) busy() bool { return f.pending.Load() > 0 }

// full says that the client has to wait. The idle function is called later.
func (f *foreign) full() bool { return f.pending.Load() > maxForeign }

// close takes descriptors, those that are not negative, and sets them to -1. Any
// goroutine.
func (f *foreign) close(fds ...int) {
	var mine []int
	for i, fd := range fds {
		if fd >= 0 {
			mine = append(mine, fd)
			fds[i] = -1
		}
	}
	if mine != nil {
		f.add(len(mine), func() { reactor.CloseFDs(mine) })
	}
}

// hangUp closes a connection. The client sees that at once.
func (f *foreign) hangUp(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	f.close(fd)
}

// do calls fn on the goroutine.
func (f *foreign) do(fn func()) { f.add(1, fn) }

func (f *foreign) add(n int, fn func()) {
	f.pending.Add(int32(n))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, func() {
		fn()
		f.pending.Add(int32(-n))
	})
	if !f.running {
		f.running = true
		go f.run()
	}
}

func (f *foreign) run() {
	for {
		f.mu.Lock()
		queue := f.queue
		f.queue = nil
		if len(queue) == 0 {
			f.running = false
			f.mu.Unlock()
			f.reactor.PostFunc(f.idle)
			return
		}
		f.mu.Unlock()
		for _, fn := range queue {
			fn()
		}
	}
}
