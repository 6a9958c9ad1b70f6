package virtionet

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
)

// coalescer puts off the interrupts of a queue (5.1.6.5.9): until a number of frames were
// used, or for a time from the first one on.
type coalescer struct {
	on         atomic.Bool // there is something to put off: looked at without the lock
	interrupts *counter

	mu      sync.Mutex
	q       *virtio.Queue // nil: not enabled
	last    *virtio.Queue // the one that max is for
	max     spec.Coalesce
	frames  uint32 // used since the last interrupt
	pending bool   // the driver wanted an interrupt since
	timer   *time.Timer
	running bool // the timer is
}

// used is called when n frames were used, and says whether to interrupt the driver now.
// wanted says whether the driver wants to be interrupted for them.
func (c *coalescer) used(n int, wanted bool) (now bool) {
	if !c.on.Load() {
		return wanted
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames += uint32(n)
	c.pending = c.pending || wanted
	if c.due() {
		return c.settle()
	}
	if c.frames > 0 && !c.running {
		c.running = true
		after := time.Duration(c.max.MaxUsecs) * time.Microsecond
		if c.timer == nil {
			c.timer = time.AfterFunc(after, c.expired)
		} else {
			c.timer.Reset(after)
		}
	}
	return false
}

// due says whether nothing is to be put off any longer.
func (c *coalescer) due() bool {
	return c.max.MaxPackets == 0 || c.max.MaxUsecs == 0 || c.frames >= c.max.MaxPackets
}

// settle begins anew, and says whether there was an interrupt to be raised.
func (c *coalescer) settle() (pending bool) {
	pending = c.pending
	c.frames, c.pending = 0, false
	if c.running {
		// If it cannot be stopped any more it finds nothing to do, or interrupts early.
		c.timer.Stop()
		c.running = false
	}
	return pending
}

// expired is called when the time has passed.
func (c *coalescer) expired() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	c.flush()
}

// flush raises what was put off.
func (c *coalescer) flush() {
	if c.settle() && c.q != nil {
		c.q.Interrupt()
		c.interrupts.Add(1)
	}
}

// start is called when a queue is started. A new one begins with what holds for all of its
// kind.
func (c *coalescer) start(q *virtio.Queue, all spec.Coalesce) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.q = q
	if q != c.last {
		c.last = q
		c.set(all)
	}
}

// stop is called when a queue is stopped.
func (c *coalescer) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	c.q = nil
}

// change sets the parameters of a queue, if it is enabled.
func (c *coalescer) change(p spec.Coalesce) (ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.q == nil {
		return false
	}
	c.set(p)
	return true
}

// set changes the parameters. What is due then is raised.
func (c *coalescer) set(p spec.Coalesce) {
	c.max = p
	c.on.Store(p.MaxPackets != 0 && p.MaxUsecs != 0)
	if c.due() {
		c.flush()
	}
}

// get gives the parameters of a queue, if it is enabled.
func (c *coalescer) get() (p spec.Coalesce, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.max, c.q != nil
}

// coalescing is the parameters for all queues of a kind.
type coalescing struct {
	mu sync.Mutex
	of [2]spec.Coalesce // by the parity of a virtqueue's index: receive, transmit
}

// reset is the state that a driver finds.
func (c *coalescing) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of = [2]spec.Coalesce{}
}

// coalescer is that of a virtqueue, nil for one that is not of a pair.
func (c *card) coalescer(i int) *coalescer {
	switch {
	case i/2 >= len(c.pairs):
		return nil
	case i == spec.TransmitQueue(i/2):
		return &c.pairs[i/2].tx.coalescer
	default:
		return &c.pairs[i/2].rx.coalescer
	}
}

// startCoalescing is called when virtqueue i is started.
func (c *card) startCoalescing(i int, q *virtio.Queue) {
	c.coalescing.mu.Lock()
	defer c.coalescing.mu.Unlock()
	c.coalescer(i).start(q, c.coalescing.of[i%2])
}

// coalesceAll is VIRTIO_NET_CTRL_NOTF_COAL_RX_SET or TX_SET.
func coalesceAll(kind int) func(*control, []byte) bool {
	return func(k *control, data []byte) bool {
		var p spec.Coalesce
		p.Get(data)
		k.c.coalescing.mu.Lock()
		defer k.c.coalescing.mu.Unlock()
		k.c.coalescing.of[kind] = p
		for pair := range k.c.pairs {
			k.c.coalescer(2*pair + kind).change(p)
		}
		return true
	}
}

// coalesceQueue is VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET.
func (k *control) coalesceQueue(data []byte) bool {
	var p spec.CoalesceVQ
	p.Get(data)
	c := k.c.coalescer(int(p.Queue))
	return c != nil && c.change(p.Coalesce)
}

// tellCoalescing is VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET. The answer is a part of the command's
// data, in front of the acknowledgement.
func (k *control) tellCoalescing(data []byte) bool {
	c := k.c.coalescer(int(binary.LittleEndian.Uint16(data)))
	if c == nil {
		return false
	}
	p, ok := c.get()
	p.Put(k.reply[:])
	return ok
}
