package fuzz

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// What is waited for comes after milliseconds, or never: it hangs. How long is waited is counted in
// moments that this process has waited through. One that lasts longer, because the machine has no
// processor to spare or stops the process, counts like any other.
const moment = 10 * time.Millisecond

// longLife is the time after which an execution begins nothing new: on a slow machine one of many
// operations would otherwise come close to hangLimit of fuzzrun, at which Go ends the process.
const longLife = 3 * time.Second

// moments is how many make up a time, at least one.
func moments(limit time.Duration) int { return max(1, int(limit/moment)) }

// await waits for something that is sent; false if it hangs.
func await[T any](limit time.Duration, c <-chan T) (v T, ok bool) {
	ticks := time.NewTicker(moment) // one that is not looked at is lost
	defer ticks.Stop()
	for range moments(limit) {
		select {
		case v = <-c:
			return v, true
		case <-ticks.C:
		}
	}
	return v, false
}

// errHangs is why a pace's context has ended.
var errHangs = errors.New("it hangs")

// pace is a context for calls, of which none may hang.
type pace struct {
	context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
	left   atomic.Int64 // moments
}

// newPace makes one that has to be stopped.
func newPace(limit time.Duration) *pace {
	p := &pace{limit: limit}
	p.Context, p.cancel = context.WithCancelCause(context.Background())
	p.step()
	p.timer = time.AfterFunc(time.Hour, p.tick)
	p.timer.Reset(moment)
	return p
}

// step notes that a call has ended.
func (p *pace) step() { p.left.Store(int64(moments(p.limit))) }

func (p *pace) tick() {
	if p.left.Add(-1) <= 0 {
		p.cancel(errHangs)
		return
	}
	p.timer.Reset(moment)
}

// hangs tells whether a call did.
func (p *pace) hangs() bool { return errors.Is(context.Cause(p), errHangs) }

func (p *pace) stop() {
	p.cancel(nil)
	p.timer.Stop()
	p.left.Store(0) // a tick that is under way is the last
}
