//go:build poll_opt

package reactor

// polling runs the loop; each descriptor carries its callback in the attachment of its slot.
func (r *Reactor) polling() error { return r.poller.Polling() }
