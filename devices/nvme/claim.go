package nvme

import (
	"errors"

	"vfiouser/block"
)

// claimStorage takes the storage that another server may have had (block.Claimer): when the
// controller is enabled, when a state has arrived, and when a controller goes on that had
// saved its state. It costs little where everything is claimed.
func (c *Controller) claimStorage() error {
	for _, ns := range c.subsystem.list() {
		if b, ok := ns.backend.(block.Claimer); ok {
			if err := b.Claim(); err != nil {
				return err
			}
		}
	}
	c.subsystem.chores.own(true)
	return nil
}

// giveBack lets the source go on with the storage of a state that arrived here and never
// ran. No request is in flight.
func (h *host) giveBack() {
	if !h.arrived {
		return
	}
	h.arrived = false
	if err := h.c.yieldStorage(); err != nil {
		h.s.Logger().Error("the storage stays locked", "err", err)
	}
}

// yieldStorage lets the server have it to which the state goes. The data path is held.
func (c *Controller) yieldStorage() error {
	c.subsystem.chores.own(false)
	var errs []error
	for _, ns := range c.subsystem.list() {
		if b, ok := ns.backend.(block.Claimer); ok {
			errs = append(errs, b.Yield())
		}
	}
	return errors.Join(errs...)
}
