package link

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
)

// watcher tells a link which of its descriptors are ready. It is an epoll instance of the
// link's own, and that stands in the reactor: so a worker asks for an event with one system
// call of its own, and the reactor's loop is not bothered before there is one.
type watcher struct {
	loop  *reactor.Reactor
	epoll int
	reg   *reactor.FD
	ready func(key int32, events uint32) // on the loop
	once  sync.Once
	batch [16]unix.EpollEvent
}

// newWatcher returns a watcher that calls ready on the loop for every event between start and
// close.
func newWatcher(loop *reactor.Reactor, ready func(key int32, events uint32)) (*watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &watcher{loop: loop, epoll: epoll, ready: ready}, nil
}

func (w *watcher) start() (err error) {
	w.sync(func() { w.reg, err = w.loop.Add(w.epoll, reactor.Readable, w) })
	return err
}

// add makes a descriptor known, with key as its name. Nothing is watched yet, but an error or
// a hang-up may be told once. Any goroutine.
func (w *watcher) add(fd int, key int32) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: key})
}

// arm asks for one event out of events, or an error or a hang-up. Nothing more comes until it
// is called again. Any goroutine.
func (w *watcher) arm(fd int, key int32, events uint32) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: key})
}

// remove forgets a descriptor. An event that was fetched before may still be told.
func (w *watcher) remove(fd int) {
	_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

// HandleEvents is for the reactor.
func (w *watcher) HandleEvents(reactor.Events) {
	n, err := unix.EpollWait(w.epoll, w.batch[:], 0)
	if err != nil {
		return // interrupted: the event comes again
	}
	for i := range w.batch[:n] {
		w.ready(w.batch[i].Fd, w.batch[i].Events)
	}
}

// sync runs fn on the loop and waits for it, or runs it here if there is no loop any more.
// Any goroutine, the loop's too.
func (w *watcher) sync(fn func()) {
	if w.loop.OnLoop() {
		fn()
		return
	}
	ran := false
	if w.loop.Do(func() { ran = true; fn() }); !ran {
		<-w.loop.Done()
		fn()
	}
}

// close ends the watch: ready is not running when it returns, unless it is ready that calls,
// and is not called again. Idempotent.
func (w *watcher) close() {
	w.once.Do(func() {
		w.sync(func() {
			if w.reg != nil {
				_ = w.reg.Remove()
			}
		})
		_ = unix.Close(w.epoll)
	})
}
