package nvme

import (
	"slices"

	"vfiouser/block"
)

// pollers are the backends of which a group looks for completions itself, while it has
// commands in flight. Its worker spins anyway, and has nobody woken then.
type pollers struct {
	list  []block.Poller
	fresh bool // commands were submitted that wait for poll
}

// take notes that a command goes to a backend.
func (p *pollers) take(b block.Poller) {
	p.fresh = true
	if !slices.Contains(p.list, b) {
		p.list = append(p.list, b)
	}
}

func (p *pollers) poll() {
	p.fresh = false
	for _, b := range p.list {
		b.Poll()
	}
}

// rest leaves it to the backends to deliver what is in flight. The next poll takes it back.
func (p *pollers) rest() {
	p.fresh = false
	for _, b := range p.list {
		b.Rest()
	}
}

// clear is rest of a group that has nothing in flight.
func (p *pollers) clear() {
	p.rest()
	clear(p.list)
	p.list = p.list[:0]
}
