package netmodel

import (
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/fuzz/choice"
)

// doubt makes what the host has under way uncertain: something broke, or will.
func (h *host) doubt() {
	if len(h.fresh) == 0 && !h.anyFlying() {
		return
	}
	for _, a := range h.fresh {
		a.maybe = true
	}
	h.fresh = nil
	for _, other := range h.w.hosts {
		other.doubtful = true
	}
}

func (h *host) anyFlying() bool {
	for _, n := range h.flying {
		if n > 0 {
			return true
		}
	}
	return false
}

// othersSettle has nothing under way to this host but what it sends itself.
func (h *host) othersSettle() {
	for _, other := range h.w.hosts {
		if other != h {
			if other.stalled {
				other.stall()
			}
			other.settle()
		}
	}
}

// lose forgets what has arrived at queues that are gone.
func (h *host) lose(queues ...int) {
	h.doubtful = true
	for _, q := range queues {
		h.expected[q] = nil
	}
}

func (h *host) allQueues() (all []int) {
	for i := range h.expected {
		all = append(all, i)
	}
	return all
}

// burst has something under way, or not.
func (h *host) burst() {
	if h.w.src.Bool() {
		n := 1 + h.w.src.Intn(4)
		to := make([]string, n)
		for i := range to {
			to[i] = choice.Pick(h.w.src, h.w.address(), broadcast)
		}
		h.sendTo(0, to)
	}
}

// reopen resets the device, perhaps while it sends, and brings it up with other features.
func (h *host) reopen() {
	h.othersSettle()
	h.burst()
	h.doubt()
	if h.w.src.Odds(3) {
		h.w.must(h.dev.Reset(h.w.ctx)) // as a VFIO client does, without a word to the driver
	}
	h.lose(h.allQueues()...)
	h.w.must(h.nic.Close())
	h.nic = nil
	h.unstall()
	h.open()
}

// reconnect ends the session, perhaps while frames are sent, and begins another.
func (h *host) reconnect() {
	h.othersSettle()
	h.burst()
	h.doubt()
	h.lose(h.allQueues()...)
	h.disconnect()
	h.unstall()
	h.connect()
	h.open()
}

// resetQueue resets a pair, perhaps while it sends.
func (h *host) resetQueue() {
	w := h.w
	if !h.nic.Has(1 << 40) { // RING_RESET
		return
	}
	h.othersSettle()
	i := w.src.Intn(len(h.flying))
	for other := range h.flying {
		if other != i && h.flying[other] > 0 {
			h.settleAll()
		}
	}
	h.burst()
	if i != 0 && h.anyFlying() {
		h.settleAll()
	}
	h.doubt()
	h.lose(i)
	w.must(h.nic.Queue(i).Reset(w.ctx))
	h.flying[i] = 0
	h.unstall()
	h.hello(i)
}

// unmap takes all memory away, perhaps while frames are sent, and gives it back: what waited
// then goes on.
func (h *host) unmap() {
	w := h.w
	h.othersSettle()
	if h.byMessage {
		// A message that fails while something is delivered breaks the queue.
		h.drain()
		for _, list := range h.expected {
			if len(list) > 0 {
				return // nobody knows whether that is on its way
			}
		}
	} else {
		h.burst()
	}
	m, ok := h.dev.MappingOf(h.mem)
	if !ok {
		w.t.Fatal("the memory is not mapped")
	}
	w.must(h.dev.UnmapDMA(w.ctx, m.IOVA, m.Size))
	h.away = true
	if !h.byMessage || !w.loop {
		h.burst()
	}
	if w.loop {
		h.doubt() // what is sent at that moment may find nowhere to arrive
	}
	w.must(h.dev.MapDMA(w.ctx, m))
	h.away = false
}

// stall has the link take nothing more, or go on.
func (h *host) stall() {
	h.stalled = !h.stalled
	h.wire.stuck.Store(h.stalled)
	if !h.stalled {
		for q := range h.card.Stats() {
			h.wire.card.Wake(q)
		}
	}
}

// unstall is stall where nothing waits any more.
func (h *host) unstall() {
	if h.stalled {
		h.stall()
	}
}

// carrier has the other end go, or come.
func (h *host) carrier() {
	h.up = !h.up
	h.wire.card.SetCarrier(h.up)
	h.linkIs(h.up)
}

// linkIs waits until the driver has heard of the link.
func (h *host) linkIs(up bool) {
	if !h.nic.Has(spec.FeatureStatus) {
		return
	}
	for h.nic.LinkUp() != up {
		select {
		case <-h.nic.Changed():
		case <-h.w.ctx.Done():
			h.w.t.Fatalf("the driver is not told that the link is up: %v", up)
		}
	}
}
