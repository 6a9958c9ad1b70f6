//go:build !poll_opt

package reactor

// polling runs the loop; the poller finds a descriptor's handler through one callback.
func (r *Reactor) polling() error { return r.poller.Polling(r.dispatch) }
