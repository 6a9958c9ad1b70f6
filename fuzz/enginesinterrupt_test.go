package fuzz

import (
	"fmt"

	"vfiouser/client"
	"vfiouser/codec"
)

// fire is what follows when something may make a vector fire.
func (v *vector) fire() {
	if v.pending && v.assigned && !v.masked {
		v.pending = false
		v.signals++
	}
}

// raise is a trigger of the device's.
func (v *vector) raise() {
	if v.assigned && !v.masked {
		v.signals++
		return
	}
	v.pending = true
}

func (w *world) deviceTriggers() {
	n := w.s.Intn(echoVectors)
	w.must(fmt.Sprintf("the device triggers %d", n), w.do(echoTriggers, byte(n), 0, 0))
	w.vectors[n].raise()
}

// someVectors chooses vectors, mostly such that are there.
func (w *world) someVectors() (start, count int, there bool) {
	start, count = w.s.Intn(echoVectors), 1+w.s.Intn(echoVectors)
	if !w.s.Odds(8) {
		count = min(count, echoVectors-start)
	}
	return start, count, start+count <= echoVectors
}

// each calls f for vectors after a call that had to succeed if they are there.
func (w *world) each(what string, call func(start, count int) error, f func(v *vector)) {
	start, count, there := w.someVectors()
	w.agree(fmt.Sprintf("%s %d vectors from %d on", what, count, start), call(start, count), there)
	if there {
		for i := range count {
			f(&w.vectors[start+i])
		}
	}
}

func (w *world) assign() {
	w.each("assign", func(start, count int) error {
		fds := make([]int, count)
		for i := range fds {
			fds[i] = w.fds[(start+i)%echoVectors].FD()
		}
		return w.dev.EnableIRQ(w.ctx, codec.IRQMSIX, start, fds...)
	}, func(v *vector) { v.assigned = true; v.fire() })
}

func (w *world) unassign() {
	w.each("unassign", func(start, count int) error {
		return w.dev.UnassignIRQ(w.ctx, codec.IRQMSIX, start, count)
	}, func(v *vector) { v.assigned = false })
}

func (w *world) mask() {
	w.each("mask", func(start, count int) error {
		return w.dev.MaskIRQ(w.ctx, codec.IRQMSIX, start, count)
	}, func(v *vector) { v.masked = true })
}

func (w *world) unmask() {
	w.each("unmask", func(start, count int) error {
		return w.dev.UnmaskIRQ(w.ctx, codec.IRQMSIX, start, count)
	}, func(v *vector) { v.masked = false; v.fire() })
}

func (w *world) clientTriggers() {
	w.each("trigger", func(start, count int) error {
		return w.dev.TriggerIRQ(w.ctx, codec.IRQMSIX, start, count)
	}, func(v *vector) {
		if v.assigned {
			v.raise()
		}
	})
}

func (w *world) disable() {
	w.must("disable", w.dev.DisableIRQ(w.ctx, codec.IRQMSIX))
	for i := range w.vectors {
		w.vectors[i] = vector{signals: w.vectors[i].signals}
	}
}

// reset clears the device; what the client has set up stays.
func (w *world) reset() {
	w.must("reset", w.dev.Reset(w.ctx))
	clear(w.page[:])
	for i := range w.vectors {
		w.vectors[i].pending = false
	}
}

// migrate moves the device to the other server. All of it is the same there.
func (w *world) migrate() {
	if !w.s.Odds(3) {
		return
	}
	dst := w.attach(1 - w.now)
	_, err := client.Migrate(w.ctx, w.dev, dst, client.MigrateOptions{})
	w.must("migrate", err)
	w.dev, w.now = dst, 1-w.now
	w.logged, w.dirty = nil, nil
	w.compare()
}

// reattach begins a new session with the same device, which keeps its page. What was pending is
// lost with the session.
func (w *world) reattach() {
	if !w.s.Odds(3) {
		return
	}
	next, err := w.dev.Reattach(w.ctx)
	w.must("reattach", err)
	w.dev = next
	w.logged, w.dirty = nil, nil
	for i := range w.vectors {
		w.vectors[i].pending = false
	}
	w.compare()
}
