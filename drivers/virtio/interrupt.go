package virtio

import (
	"context"
	"fmt"

	"vfiouser/client"
	"vfiouser/devices/virtio/spec"
)

// configVector is the vector of configuration changes; that of queue i is i+1.
const configVector = 0

// openInterrupts switches MSI-X on, if the device has it, with the vector for changes of the configuration. d.mu is held.
func (d *Device) openInterrupts(ctx context.Context) error {
	if d.t.msix == 0 {
		return nil
	}
	info, err := d.t.dev.IRQInfo(ctx, client.IRQMSIX)
	if err != nil {
		return err
	}
	if info.Count == 0 {
		return nil
	}
	d.vectors = int(info.Count)
	if d.changed != nil {
		if d.config, err = d.t.dev.Interrupts(ctx, client.IRQMSIX, configVector, 1); err != nil {
			return err
		}
	}
	if err := d.t.command(ctx, d.t.msix+msixControl, msixEnable, 0); err != nil {
		return err
	}
	if d.config == nil {
		return nil
	}
	return d.assign(ctx, spec.ConfigMSIXVector, configVector)
}

// assign writes a vector to a register, which says whether the device takes it (4.1.5.1.2).
func (d *Device) assign(ctx context.Context, register uint64, vector int) error {
	if err := d.t.write16(ctx, register, uint16(vector)); err != nil {
		return fmt.Errorf("virtio: write vector: %w", err)
	}
	got, err := d.t.read16(ctx, register)
	if err != nil {
		return fmt.Errorf("virtio: read vector: %w", err)
	}
	if got != uint16(vector) {
		return fmt.Errorf("%w: vector %d, the device answers %#x", ErrUnsupported, vector, got)
	}
	return nil
}

// closeInterrupts switches MSI-X off and takes the eventfds away. d.mu is held.
func (d *Device) closeInterrupts(ctx context.Context) error {
	if d.vectors == 0 {
		return nil
	}
	if err := d.t.command(ctx, d.t.msix+msixControl, 0, msixEnable); err != nil {
		return err
	}
	return d.t.dev.DisableIRQ(ctx, client.IRQMSIX)
}

// watch handles changes of the configuration, and wakes everybody who waits when the session ends.
func (d *Device) watch() {
	for d.config != nil {
		if _, err := d.config.Wait(d.ctx); err != nil {
			break
		}
		d.lookAtStatus()
		d.changed(d)
	}
	select {
	case <-d.t.dev.Done():
	case <-d.ctx.Done():
	}
	d.cancel()
	d.wakeQueues()
}

// lookAtStatus finds out whether the device has failed (2.1.2): it says so with a configuration change interrupt.
func (d *Device) lookAtStatus() {
	s, err := d.t.status(d.ctx)
	if err != nil || !s.Has(spec.StatusNeedsReset) {
		return
	}
	failure := error(ErrNeedsReset)
	d.failure.Store(&failure)
	d.wakeQueues()
}

func (d *Device) wakeQueues() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.queues {
		if q.irq != nil {
			q.irq.Signal()
		}
	}
}
