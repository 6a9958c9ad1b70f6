package linktest

import (
	"sync"

	"vfiouser/link/vnet"
)

// Frame is a frame that was handed over, in memory of its own.
type Frame struct {
	Queue  int
	Header vnet.Header
	Data   []byte
}

// Keep copies f.
func Keep(q int, f *vnet.Frame) Frame {
	kept := Frame{Queue: q, Header: f.Header, Data: make([]byte, 0, f.Len)}
	for _, p := range f.Parts {
		kept.Data = append(kept.Data, p...)
	}
	return kept
}

// Card is a network card that keeps what it receives. The zero value has room for
// everything. It may be used by any goroutine.
type Card struct {
	// OnReceive, if set, is asked before the frames are kept, and returns how many are taken.
	OnReceive func(q int, frames []vnet.Frame) int

	mu        sync.Mutex
	frames    []Frame
	wakes     map[int]int
	carrier   []bool
	announced int
	changed   chan struct{} // closed and replaced with every change, if somebody waits
}

// change is called with the lock held.
func (c *Card) change() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Receive keeps the frames.
func (c *Card) Receive(q int, frames []vnet.Frame) int {
	n := len(frames)
	if c.OnReceive != nil {
		n = c.OnReceive(q, frames)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range frames[:n] {
		c.frames = append(c.frames, Keep(q, &frames[i]))
	}
	c.change()
	return n
}

// Wake counts.
func (c *Card) Wake(q int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wakes == nil {
		c.wakes = map[int]int{}
	}
	c.wakes[q]++
	c.change()
}

// SetCarrier keeps what it is told.
func (c *Card) SetCarrier(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.carrier = append(c.carrier, up)
	c.change()
}

// Announce counts.
func (c *Card) Announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announced++
	c.change()
}

// Take returns what was received since the last Take.
func (c *Card) Take() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.frames
	c.frames = nil
	return taken
}

// Wakes is how often queue pair q was woken.
func (c *Card) Wakes(q int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wakes[q]
}

// Carrier is everything that SetCarrier was told, in order.
func (c *Card) Carrier() []bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]bool(nil), c.carrier...)
}

// Announced is how often Announce was called.
func (c *Card) Announced() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.announced
}

// Await blocks until ok, which is asked again whenever the card was told something. ok may
// use the card.
func (c *Card) Await(ok func() bool) {
	for {
		c.mu.Lock()
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if ok() {
			return
		}
		<-changed
	}
}
