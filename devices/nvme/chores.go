package nvme

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"

	"vfiouser/block"
)

// chores is what a subsystem does beside the commands of hosts, such as a self-test. It is done
// in steps, and there is none while the data path of a host is held, or the storage is another
// server's.
type chores struct {
	mu      sync.Mutex
	changed sync.Cond
	holds   int  // hosts whose data path is held
	claimed bool // the storage is ours
	running int  // steps
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	log     *slog.Logger
}

func (w *chores) init(log *slog.Logger) {
	w.log = log
	w.changed.L = &w.mu
	w.ctx, w.cancel = context.WithCancel(context.Background())
}

// start runs f on a goroutine of its own until it ends or the subsystem is closed. A panic ends
// the chore, not the process.
func (w *chores) start(f func(ctx context.Context)) {
	w.wg.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				w.log.Error("defect in the NVMe subsystem", "panic", v, "stack", string(debug.Stack()))
			}
		}()
		debug.SetPanicOnFault(true)
		f(w.ctx)
	})
}

// step runs f when that is possible; false means that the context has ended before.
func (w *chores) step(ctx context.Context, f func()) bool {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changed.Broadcast()
	})
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for (w.holds > 0 || !w.claimed) && ctx.Err() == nil {
		w.changed.Wait()
	}
	if ctx.Err() != nil {
		return false
	}
	w.running++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running--
		w.changed.Broadcast()
	}()
	f()
	return true
}

// hold waits for steps that run, and lets none begin until as many calls of release.
func (w *chores) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds++
	for w.running > 0 {
		w.changed.Wait()
	}
}

func (w *chores) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds--
	w.changed.Broadcast()
}

// own says whether the storage is ours. To give it away the data path has to be held.
func (w *chores) own(claimed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claimed = claimed
	w.changed.Broadcast()
}

// close ends all and waits.
func (w *chores) close() {
	w.cancel()
	w.wg.Wait()
}

// storage runs requests of a chore one after the other.
type storage struct{ ended chan error }

func newStorage() *storage { return &storage{make(chan error, 1)} }

// CompleteBlock takes the result of a request.
func (s *storage) CompleteBlock(_ *block.Request, err error) { s.ended <- err }

// submit runs a request to its end.
func (s *storage) submit(ns *namespace, r block.Request) error {
	r.Completer = s
	ended, err := ns.backend.Submit(&r)
	if !ended {
		err = <-s.ended
	}
	return err
}
