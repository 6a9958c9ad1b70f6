package virtio

// The functions here are the control goroutine's: they make the device and its queues what
// the registers want. Registers may have changed any number of times since the last look;
// what counts is the epoch, the resets of each queue, and what is wanted now.

// settle follows the registers.
func (h *host) settle() {
	asked := h.asked.Load()
	defer h.followed.Store(asked)
	w := &h.want
	h.regs.want(w)
	if w.epoch != h.epoch {
		h.stop()
		h.interrupts.take()
		h.epoch = w.epoch
		h.regs.resetDone(w.epoch)
	}
	for i, q := range h.queues {
		if w.queues[i].resets == w.queues[i].settled {
			continue
		}
		if q != nil && q.resets != w.queues[i].resets {
			h.drop(i)
		}
		h.regs.queueResetDone(w.epoch, i, w.queues[i].resets)
	}
	switch {
	case !w.run:
		h.stop()
	case !h.running:
		h.start()
	}
	if w.run && !h.failed {
		h.addQueues()
	}
	h.watchQueues()
}

// start begins with a driver.
func (h *host) start() {
	h.running, h.failed = true, true
	h.active.Store(true)
	h.guard(func() {
		if err := h.f.device.Start(&Session{Session: h.s, h: h}, h.want.features); err != nil {
			h.needsReset(h.epoch, err)
			return
		}
		h.failed = false
	})
}

// stop ends with it: all queues are forgotten.
func (h *host) stop() {
	if !h.running {
		return
	}
	for i := range h.queues {
		h.drop(i)
	}
	h.active.Store(false)
	h.running, h.failed = false, false
	h.guard(h.f.device.Stop)
}

// addQueues makes the queues that are enabled and not there yet.
func (h *host) addQueues() {
	for i := range h.want.queues {
		want := &h.want.queues[i]
		if !want.enabled || h.queues[i] != nil {
			continue
		}
		q, err := newQueue(h, i, want)
		if err != nil {
			h.needsReset(h.epoch, err)
			continue
		}
		h.queues[i] = q
		h.startQueue(q)
	}
}

// drop forgets queue i.
func (h *host) drop(i int) {
	if q := h.queues[i]; q != nil {
		h.queues[i] = nil
		h.stopQueue(q)
		q.reader.Close()
	}
}

// startQueue lets a queue run, unless all are held.
func (h *host) startQueue(q *Queue) {
	if h.held || q.started {
		return
	}
	q.started = true
	q.known = false
	h.started[q.index].Store(q)
	h.guard(func() { h.f.device.StartQueue(q.index, q) })
}

// stopQueue returns when nobody uses the queue any more.
func (h *host) stopQueue(q *Queue) {
	if !q.started {
		return
	}
	q.started = false
	h.guard(func() { h.f.device.StopQueue(q.index) })
	h.started[q.index].Store(nil)
	q.server.Store(nil)
}

// setHeld stops all queues, which keep their positions, or lets them go on.
func (h *host) setHeld(held bool) {
	h.held = held
	for _, q := range h.queues {
		switch {
		case q == nil:
		case held:
			h.stopQueue(q)
		default:
			h.placeQueue(q)
			h.startQueue(q)
		}
	}
	h.watchQueues()
}

// place has queues work by message, or not, as their memory is now, and has all of them
// look for what they could not reach.
func (h *host) place() {
	for _, q := range h.queues {
		if q != nil {
			h.placeQueue(q)
		}
	}
	h.watchQueues()
	for i := range h.started {
		h.notify(i)
	}
}

// placeQueue moves a queue between the two ways to its memory if it is on the wrong one.
func (h *host) placeQueue(q *Queue) {
	remote := h.remote(q)
	if remote == q.remote || q.failed.Load() {
		return
	}
	running := q.started
	h.stopQueue(q)
	q.setRemote(remote)
	if running {
		h.startQueue(q)
	}
}
