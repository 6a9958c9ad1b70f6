package virtqueue

import (
	"fmt"

	"vfiouser/devices/virtio/spec"
)

// State is where a queue is that has nothing in flight: what the device needs, beside the
// Config, to go on with it elsewhere. For a split queue it is the index of the next chain,
// for a packed one the Position of the next descriptor. It returns ErrBusy while chains are
// taken, or pushed and not yet published.
func (q *Queue) State() (uint16, error) {
	if q.inflight > 0 {
		return 0, ErrBusy
	}
	if q.cfg.Packed {
		return spec.Position(q.avail, q.availWrap), nil
	}
	return q.avail, nil
}

// Restore puts a queue where State of another one was. It returns ErrBusy as State does and
// ErrConfig for a place outside a packed ring. What the driver was told last of
// notifications is taken to be that they are wanted.
func (q *Queue) Restore(state uint16) error {
	if q.inflight > 0 {
		return ErrBusy
	}
	at, wrap := state, true
	if q.cfg.Packed {
		if at, wrap = spec.PositionParts(state); at >= q.size {
			return fmt.Errorf("%w: position %d in a ring of %d", ErrConfig, at, q.size)
		}
	}
	q.avail, q.used = at, at
	q.availWrap, q.usedWrap = wrap, wrap
	q.armed = true
	return nil
}
