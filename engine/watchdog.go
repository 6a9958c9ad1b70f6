package engine

import (
	"errors"
	"slices"
	"time"

	"vfiouser/engine/reactor"
)

// watchdogPeriod is how often sessions are looked at for writers that hang in an
// eventfd whose counter the client has filled. It runs only while there are sessions.
const watchdogPeriod = 100 * time.Millisecond

var errStuckInterrupt = errors.New("client blocks its interrupt eventfd")

// watchdog looks after the sessions of an engine. It lives on the reactor.
type watchdog struct {
	engine   *Engine
	sessions []*Session
	timer    *reactor.Timer
}

func (w *watchdog) add(s *Session) {
	w.sessions = append(w.sessions, s)
	if len(w.sessions) == 1 {
		w.timer = w.engine.reactor.AfterFunc(watchdogPeriod, w.tick)
	}
}

func (w *watchdog) remove(s *Session) {
	w.sessions = slices.DeleteFunc(w.sessions, func(x *Session) bool { return x == s })
	if len(w.sessions) == 0 && w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

func (w *watchdog) tick() {
	for _, s := range slices.Clone(w.sessions) {
		if s.irqs.CheckStuck() {
			s.drop(errStuckInterrupt)
		}
	}
	if len(w.sessions) > 0 {
		w.timer = w.engine.reactor.AfterFunc(watchdogPeriod, w.tick)
	}
}
