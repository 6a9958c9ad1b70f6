package card

import (
	"vfiouser/engine"
	"vfiouser/irq"
)

// churnSize is how much one read of RegChurn's takes, in bytes: a message of its own
// where guest memory has no descriptor.
const churnSize = 4096

// startCopy copies guest memory on a goroutine, and then raises an interrupt.
func (c *Card) startCopy() {
	s, source, target, length := c.session, c.source, c.target, c.length
	c.status.Store(StatusBusy)
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		err := copyMemory(s, source, target, length)
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		if err != nil {
			c.status.Store(StatusFailed)
		} else {
			c.status.Store(StatusDone)
		}
		// (they fail when the client has gone)
		if c.cfg.MSIX && s.IRQ().Enabled(irq.MSIX) {
			_ = s.IRQ().Vector(irq.MSIX, CopyVector).Trigger()
		} else {
			_ = s.IRQ().Vector(irq.INTx, 0).SetLevel(true)
		}
	}()
}

func copyMemory(s *engine.Session, source, target uint64, length uint32) error {
	buf := make([]byte, length)
	if err := s.ReadDMA(s.Context(), source, buf); err != nil {
		return err
	}
	return s.WriteDMA(s.Context(), target, buf)
}

// CopyError is why the last copy failed, or nil.
func (c *Card) CopyError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// setChurn begins or ends to read guest memory without a pause.
func (c *Card) setChurn(on bool) {
	if !on {
		c.churn.Store(false)
		return
	}
	if c.churn.Swap(true) {
		return
	}
	s, source := c.session, c.source
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		defer c.asking.Store(false)
		buf := make([]byte, churnSize)
		for c.churn.Load() {
			c.asking.Store(true)
			if s.ReadDMA(s.Context(), source, buf) != nil {
				return
			}
			c.asking.Store(false)
		}
	}()
}
