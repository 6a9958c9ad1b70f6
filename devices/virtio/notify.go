package virtio

import (
	"slices"

	"vfiouser/dma"
	"vfiouser/engine"
)

// ioEventfds are the notification addresses. Descriptors are few in a message, so the
// queues share events: a look at a queue without work costs little.
func (f *Function) ioEventfds() []engine.IOEventfd {
	const maxEvents = 16
	var events [maxEvents]*engine.IOEvent
	for e := range min(maxEvents, f.cfg.Queues) {
		events[e] = &engine.IOEvent{Handler: func(*engine.Session) {
			h := f.host.Load()
			for i := e; i < f.cfg.Queues; i += maxEvents {
				h.notify(i)
			}
		}}
	}
	list := make([]engine.IOEventfd, f.cfg.Queues)
	for i := range list {
		list[i] = engine.IOEventfd{Offset: notifyOffset + uint64(i)*notifyMultiplier, Event: events[i%maxEvents]}
	}
	return list
}

// notify tells whoever serves queue i to look at it.
func (h *host) notify(i int) {
	if i >= len(h.started) {
		return
	}
	q := h.started[i].Load()
	if q == nil {
		return
	}
	if s := q.server.Load(); s != nil {
		s.kick()
	} else {
		h.f.device.Notify(i)
	}
}

// quiet stands at a notification address of the mapped page that was not written to: no
// queue has this index (spec.Notification).
const quiet = 1<<32 - 1

// notifyPage is the notification area in mode Mmap: the last page of a file that is as
// long as BAR0.
type notifyPage struct {
	fd   int
	file []byte
}

func (p *notifyPage) open() (err error) {
	p.fd, p.file, err = engine.SharedMemory("vfiouser-virtio-notify", barSize)
	return err
}

func (p *notifyPage) close() error {
	if p.file == nil {
		return nil
	}
	return engine.ReleaseSharedMemory(p.fd, p.file)
}

// rung says whether queue i's address was written to since the last look.
func (p *notifyPage) rung(i int) bool {
	off := notifyOffset + i*notifyMultiplier
	if dma.Load32(p.file, off) == quiet {
		return false
	}
	// What the driver writes before this is seen by the look at the queue that follows,
	// and what it writes after this by the next look here.
	dma.Store32(p.file, off, quiet)
	return true
}

// watch looks at mapped notification addresses for queues that a goroutine serves, which
// does not poll. It is an engine.Source; the control goroutine changes it while it is
// detached.
type watch struct {
	h        *host
	worker   *engine.Worker
	queues   []int
	attached bool
}

// watchQueues has a worker look at what is to be watched now.
func (h *host) watchQueues() {
	if h.f.cfg.Doorbells != Mmap {
		return
	}
	var queues []int
	for i, q := range h.queues {
		if q != nil && q.started && q.remote {
			queues = append(queues, i)
		}
	}
	w := &h.watch
	if slices.Equal(queues, w.queues) {
		return
	}
	w.stop()
	w.h, w.queues = h, queues
	if len(queues) == 0 {
		return
	}
	if w.worker == nil {
		w.worker = h.s.Engine().PickWorker()
	}
	w.attached = true
	w.worker.Attach(w, engine.SourceOptions{Silent: true, MaxSleep: h.f.cfg.IdlePoll})
}

func (w *watch) stop() {
	if w.attached {
		w.worker.Detach(w)
		w.attached = false
	}
}

// Poll notifies the queues whose address was written to.
func (w *watch) Poll() (n int) {
	for _, i := range w.queues {
		if w.h.f.page.rung(i) {
			w.h.notify(i)
			n++
		}
	}
	return n
}

// Arm has nothing to ask for: the addresses are silent.
func (w *watch) Arm() bool { return false }

// Disarm has nothing to undo.
func (w *watch) Disarm() {}

// Fault reports a defect: the page is the function's own.
func (w *watch) Fault(v any, stack []byte) { w.h.fault(v, stack) }
