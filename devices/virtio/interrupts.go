package virtio

import (
	"sync"
	"sync/atomic"

	"vfiouser/devices/virtio/spec"
	"vfiouser/irq"
)

// interrupts raises what the driver is to hear of, by MSI-X or by the pin (4.1.5.3,
// 4.1.5.4).
type interrupts struct {
	set    *irq.Set
	msix   atomic.Bool
	config atomic.Pointer[irq.Vector] // nil: NO_VECTOR
	queues []atomic.Pointer[irq.Vector]

	mu  sync.Mutex
	isr uint8
}

func (i *interrupts) init(set *irq.Set, queues int) {
	i.set = set
	i.queues = make([]atomic.Pointer[irq.Vector], queues)
	i.update()
}

// update looks at what the client has enabled.
func (i *interrupts) update() {
	i.msix.Store(i.set.Enabled(irq.MSIX))
	i.note(0)
}

// bind maps an event to a vector.
func (i *interrupts) bind(event *atomic.Pointer[irq.Vector], vector uint16) {
	if vector == spec.NoVector {
		event.Store(nil)
		return
	}
	event.Store(i.set.Vector(irq.MSIX, int(vector)))
}

// unbind unmaps all events.
func (i *interrupts) unbind() {
	i.config.Store(nil)
	for n := range i.queues {
		i.queues[n].Store(nil)
	}
}

// queue tells that something was used in queue n. Any goroutine.
func (i *interrupts) queue(n int) {
	if i.msix.Load() {
		fire(&i.queues[n])
		return
	}
	i.note(spec.ISRQueue)
}

// configChanged tells of a change of the configuration or of the status, if there is a driver
// to tell. The bit in the ISR is set for either kind of interrupt (4.1.4.5.1). A reset ends what
// running says before it takes the ISR back, so no bit is set behind it.
func (i *interrupts) configChanged(running func() bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !running() {
		return
	}
	i.isr |= spec.ISRConfig
	i.drive()
	if i.msix.Load() {
		fire(&i.config)
	}
}

func fire(event *atomic.Pointer[irq.Vector]) {
	if v := event.Load(); v != nil {
		_ = v.Trigger() // fails only when the session has ended
	}
}

// note sets bits of the ISR and has the pin follow: it is up while a bit is set.
func (i *interrupts) note(bits uint8) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.isr |= bits
	i.drive()
}

// take reads the ISR, which clears it and lowers the pin.
func (i *interrupts) take() uint8 {
	i.mu.Lock()
	defer i.mu.Unlock()
	isr := i.isr
	i.isr = 0
	i.drive()
	return isr
}

func (i *interrupts) drive() {
	_ = i.set.Vector(irq.INTx, 0).SetLevel(i.isr != 0 && !i.msix.Load()) // fails only when the session has ended
}
