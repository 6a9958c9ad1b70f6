package nvme

import (
	"slices"
	"syscall"

	"vfiouser/block"
)

// pollers are the backends of which a group looks for completions itself, while it has
// commands in flight. Its worker spins anyway, and has nobody woken then.
type pollers struct {
	list  []block.Poller
	fresh bool // commands were submitted that wait for poll
	yield func()
}

// yieldProcessor lets the kernel's own threads run, which do what would block and may need this
// very processor; sched_yield(2).
func yieldProcessor() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

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
