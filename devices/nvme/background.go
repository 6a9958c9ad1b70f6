package nvme

import (
	"context"
	"runtime/debug"
	"sync"

	"vfiouser/devices/nvme/spec"
)

// maxBackground bounds the admin commands that run beside the control goroutine; while
// there are as many no other admin command is fetched.
const maxBackground = 64

// background is the admin commands of a host that take their time.
type background struct {
	mu       sync.Mutex
	finished []finished // under mu
	running  int        // of the control goroutine: not yet posted
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// finished is a command that is to be completed.
type finished struct {
	adminResult
	after func(spec.Status)
}

// later runs f on a goroutine of its own, and completes the command with what it returns.
// The context ends when the controller is reset or the client leaves, which wait for f; f
// must not wait for the control goroutine. after, if it is not nil, is told the status on the
// control goroutine before the completion is posted.
func (h *host) later(e *spec.SubmissionEntry, f func(ctx context.Context, by *courier) (spec.Status, uint32), after func(spec.Status)) (spec.Status, uint32) {
	b := &h.background
	if b.running == 0 {
		b.ctx, b.cancel = context.WithCancel(h.s.Context())
	}
	b.running++
	ctx, entry := b.ctx, *e
	b.wg.Go(func() {
		debug.SetPanicOnFault(true)
		st, dw0 := h.runLater(ctx, f)
		if !st.OK() {
			st = h.logFailure(0, &entry, st)
		}
		b.mu.Lock()
		b.finished = append(b.finished, finished{adminResult{entry.CID, st, dw0}, after})
		b.mu.Unlock()
		h.signal()
	})
	return notYet, 0
}

func (h *host) runLater(ctx context.Context, f func(context.Context, *courier) (spec.Status, uint32)) (st spec.Status, dw0 uint32) {
	defer func() {
		if v := recover(); v != nil {
			h.fault(v, debug.Stack())
			st = spec.InternalError
		}
	}()
	return f(ctx, &courier{h: h, ended: make(chan error, 1), quit: ctx.Done()})
}

// collectBackground takes what has finished to the completions that are to be posted.
func (h *host) collectBackground() {
	b := &h.background
	if b.running == 0 {
		return
	}
	b.mu.Lock()
	finished := b.finished
	b.finished = nil
	b.mu.Unlock()
	for _, r := range finished {
		b.running--
		if r.after != nil {
			r.after(r.st)
		}
		h.admin.unposted = append(h.admin.unposted, r.adminResult)
	}
	if b.running == 0 {
		b.cancel()
	}
}

// endBackground cancels what runs, waits for it, and forgets its results.
func (h *host) endBackground() {
	b := &h.background
	if b.running == 0 {
		return
	}
	b.cancel()
	b.wg.Wait()
	b.finished, b.running = nil, 0
}
