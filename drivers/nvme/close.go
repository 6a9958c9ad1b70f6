package nvme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// Close shuts the controller down in order (CC.SHN), disables it and frees everything of the driver, queues included:
// no Queue may be in use any more, while calls to namespaces fail with ErrClosed. The device and the memory
// stay the caller's. After the session's end it only frees. Closing again does nothing.
func (c *Controller) Close() (err error) {
	c.once.Do(func() { err = c.close() })
	return err
}

func (c *Controller) close() error {
	c.closed.Store(true)
	c.cancel()
	c.wg.Wait()
	c.ioMu.Lock()
	io := c.io
	c.ioMu.Unlock()
	for _, x := range []*executor{c.admin, io} {
		if x != nil {
			x.close()
		}
	}
	var err error
	if c.dev.Err() == nil {
		err = c.shutDown()
	}
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	for _, q := range c.queues {
		if q == nil {
			continue
		}
		q.closed.Store(true)
		_ = q.fail(ErrClosed)
		if err != nil {
			q.memory = nil // the device may still write to it: nobody gets it again
		}
		q.release()
	}
	if err == nil {
		c.mem.Free(c.bells.shadow)
		c.mem.Free(c.bells.event)
	}
	if c.bells.mapped != nil {
		err = errors.Join(err, c.bells.mapped.Close())
	}
	return err
}

// shutDown has the device let go of the memory.
func (c *Controller) shutDown() error {
	if c.admin == nil {
		return c.unmapMemory() // it was never enabled
	}
	limit := min(c.timeout, time.Duration(c.cap.TO())*readyUnit+readyGrace)
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, ErrTimeout)
	defer cancel()
	err := errors.Join(c.notifyShutdown(ctx), c.disable(ctx))
	if c.msixControl&msixEnable != 0 {
		c.msixControl &^= msixEnable
		err = errors.Join(err, c.writeConfig16(ctx, c.msix+msixControl, c.msixControl), c.dev.DisableIRQ(ctx, client.IRQMSIX))
	}
	if err = errors.Join(err, c.unmapMemory()); err != nil {
		return fmt.Errorf("nvme: close: %w", err)
	}
	return nil
}

// notifyShutdown is a normal shutdown (Base 2.0, 3.6.1).
func (c *Controller) notifyShutdown(ctx context.Context) error {
	cc, err := c.dev.ReadRegion32(ctx, bar0, spec.RegCC)
	if err != nil || !spec.CC(cc).EN() {
		return err
	}
	if err := c.dev.WriteRegion32(ctx, bar0, spec.RegCC, uint32(spec.CC(cc).WithSHN(spec.ShutdownNormal))); err != nil {
		return err
	}
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, readyPause) {
		v, err := c.dev.ReadRegion32(ctx, bar0, spec.RegCSTS)
		if err != nil {
			return err
		}
		if csts := spec.CSTS(v); csts.SHST() == spec.ShutComplete || csts.CFS() {
			return nil
		}
		if sleep(ctx, pause) != nil {
			return context.Cause(ctx)
		}
	}
}

func (c *Controller) unmapMemory() error {
	if !c.ourMap {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	return c.dev.UnmapDMA(ctx, c.base, c.mem.Size())
}
