package virtio

import (
	"errors"
	"slices"
	"sync/atomic"

	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/dma"
)

// Queue is a virtqueue that the driver has enabled: the ring, and what it takes to use it
// for a client. It is for one goroutine at a time, from StartQueue to StopQueue, but for
// Index and Interrupt.
//
//	if !q.Enter() {
//		return 0
//	}
//	n, err := q.Take(chains)
//	… q.Push(&chains[i], written) …
//	interrupt := q.Publish()
//	q.Exit()
//	if err != nil {
//		q.Fail(err)
//	}
//	if interrupt {
//		q.Interrupt()
//	}
type Queue struct {
	*virtqueue.Queue

	h      *host
	index  int
	epoch  uint64 // of the registers
	resets uint64 // of the queue
	config virtqueue.Config
	probe  *virtqueue.Queue // tells how the ring can be reached, while q is in use
	reader *dma.Reader

	gen    uint64 // of the memory table that the ring was translated for
	known  bool   // gen is
	usable bool   // the ring was found then
	remote bool   // works by message
	// forced: it does in any case (Serve). chains: because a chain was there that can be
	// reached in no other way.
	forced  bool
	chains  atomic.Bool
	failed  atomic.Bool // broken for good
	started bool        // the control goroutine's
	server  atomic.Pointer[Server]
}

func newQueue(h *host, i int, want *queueRegisters) (*Queue, error) {
	features := h.want.features
	q := &Queue{h: h, index: i, epoch: h.epoch, resets: want.resets, config: virtqueue.Config{
		Size: want.size, Desc: want.desc, Driver: want.driver, Device: want.device,
		Packed:   features&spec.FeatureRingPacked != 0,
		Indirect: features&spec.FeatureIndirectDesc != 0,
		EventIdx: features&spec.FeatureEventIdx != 0,
		InOrder:  features&spec.FeatureInOrder != 0,
	}}
	var err error
	if q.Queue, err = virtqueue.New(q.config); err != nil {
		return nil, err
	}
	if q.probe, err = virtqueue.New(q.config); err != nil {
		return nil, err
	}
	q.reader = h.s.Memory().NewReader()
	if h.remote(q) {
		q.setRemote(true)
	}
	return q, nil
}

// Index is the queue's number.
func (q *Queue) Index() int { return q.index }

// Size is the number of entries.
func (q *Queue) Size() int { return int(q.config.Size) }

// Remote says that guest memory is reached by message: the calls of the queue then block,
// so that it is to be served by a goroutine, not by a worker. It changes only between
// StopQueue and StartQueue, and with Serve.
func (q *Queue) Remote() bool { return q.remote }

// Reader is the queue's, in its section between Enter and Exit.
func (q *Queue) Reader() *dma.Reader { return q.reader }

// Enter begins a section in which the queue can be used: what Take gives is valid until
// Exit. False, without a section, if it cannot: it is broken, its ring is not in guest
// memory now, or is to be reached in another way from now on. Notify, or StopQueue, comes
// when that changes. On a queue by message there is no section; the buffers are copies.
func (q *Queue) Enter() bool {
	if q.failed.Load() || q.chains.Load() && !q.remote {
		return false
	}
	if q.remote {
		return true
	}
	q.reader.Enter()
	if gen := q.reader.Generation(); !q.known || gen != q.gen {
		q.gen, q.known = gen, true
		q.usable = q.translate()
	}
	if !q.usable {
		q.reader.Exit()
	}
	return q.usable
}

// Exit ends the section.
func (q *Queue) Exit() { q.reader.Exit() }

// translate finds the ring's memory.
func (q *Queue) translate() bool {
	err := q.Queue.Translate(q.reader)
	switch {
	case err == nil:
		return true
	case errors.Is(err, virtqueue.ErrRemote):
		q.h.ask(func(r *request) { r.place = true })
	case errors.Is(err, dma.ErrProt):
		q.Fail(err)
	}
	return false // the memory may come
}

// Interrupt tells the driver that something was used, as it has set up. Any goroutine.
func (q *Queue) Interrupt() { q.h.interrupts.queue(q.index) }

// Fail takes what Take returned. If a chain lies in memory that is reached by message the
// queue is stopped and started again as one that works so (Remote); if the ring is not in
// guest memory now, Notify comes when that has changed. Anything else is the driver's
// fault: the queue is broken and DEVICE_NEEDS_RESET set. The device's other queues, and
// other devices, go on.
func (q *Queue) Fail(err error) {
	if errors.Is(err, virtqueue.ErrRemote) {
		q.chains.Store(true)
		q.h.ask(func(r *request) { r.place = true })
		return
	}
	if q.away(err) || q.h.s.Context().Err() != nil || q.failed.Swap(true) {
		return
	}
	q.h.needsReset(q.epoch, err)
}

// away says whether an error of a queue by message means that the ring is not in guest
// memory, as long as the client changes its mappings. What is broken for good is not away.
func (q *Queue) away(err error) bool {
	var e *virtqueue.Error
	if q.Err() != nil || !errors.As(err, &e) || e.Rule != virtqueue.ErrMemory || !errors.Is(err, dma.ErrNotMapped) {
		return false
	}
	c := &q.config
	desc, driver, device := spec.DescBytes(c.Size), spec.AvailBytes(c.Size), spec.UsedBytes(c.Size)
	if c.Packed {
		driver, device = spec.EventSize, spec.EventSize
	}
	return e.Addr-c.Desc < desc || e.Addr-c.Driver < driver || e.Addr-c.Device < device
}

// Fault is for whoever recovered from a panic while he used the queue, for example in
// engine.Source.Fault: it ends the section and the client's session, be it that the client
// has truncated its memory (dma.IsFault, ErrMemoryGone) or that there is a defect.
func (q *Queue) Fault(v any, stack []byte) {
	q.reader.Exit()
	q.failed.Store(true)
	q.h.fault(v, stack)
}

// remote says how the queue's memory is to be reached now. A queue whose ring is not there
// stays as it is.
func (h *host) remote(q *Queue) bool {
	if q.forced {
		return true
	}
	if q.chains.Load() && h.messages() {
		return true
	}
	q.chains.Store(false)
	h.reader.Enter()
	defer h.reader.Exit()
	switch err := q.probe.Translate(h.reader); {
	case err == nil:
		return false
	case errors.Is(err, virtqueue.ErrRemote):
		return true
	}
	return q.remote
}

// messages says whether any guest memory is reached by message. There may be many regions
// and many queues, so it looks once for each state of the table.
func (h *host) messages() bool {
	gen := h.s.Memory().Generation()
	if gen != h.messagesGen {
		h.anyMessages = slices.ContainsFunc(h.s.Memory().Regions(), func(r dma.Region) bool { return r.Local == nil })
		h.messagesGen = gen
	}
	return h.anyMessages
}

// setRemote has a queue that nobody uses work by message, or not.
func (q *Queue) setRemote(remote bool) {
	if remote {
		q.remote = true
		q.Queue.SetRemote(guestMemory{q.h.s})
		return
	}
	q.reader.Enter()
	defer q.reader.Exit()
	if q.Queue.Translate(q.reader) == nil {
		q.remote = false
	}
}
