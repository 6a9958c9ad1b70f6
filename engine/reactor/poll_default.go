//go:build !poll_opt

package reactor

import "golang.org/x/sys/unix"

// polling runs the loop; the poller finds a descriptor's handler through one callback.
func (r *Reactor) polling() error { return r.poller.Polling(r.dispatch) }

// eventFD is the descriptor that an event is about.
func eventFD(ev *unix.EpollEvent) int { return int(ev.Fd) }
