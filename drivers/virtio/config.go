package virtio

import (
	"context"
	"fmt"

	"vfiouser/devices/virtio/spec"
)

// ReadConfig reads the device-specific configuration from off on, all of p from one generation (2.5). ErrUnsupported if the
// configuration is shorter.
func (d *Device) ReadConfig(ctx context.Context, off int, p []byte) error {
	if err := d.checkConfig(off, len(p)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.await(ctx, "read configuration", func(ctx context.Context) (bool, error) {
		before, err := d.t.read8(ctx, spec.ConfigGeneration)
		if err != nil {
			return false, err
		}
		if err := d.t.dev.ReadRegion(ctx, d.t.config.bar, d.t.config.off+uint64(off), p); err != nil {
			return false, err
		}
		after, err := d.t.read8(ctx, spec.ConfigGeneration)
		return before == after, err
	})
}

// WriteConfig writes p to the device-specific configuration. See ReadConfig.
func (d *Device) WriteConfig(ctx context.Context, off int, p []byte) error {
	if err := d.checkConfig(off, len(p)); err != nil {
		return err
	}
	if err := d.t.dev.WriteRegion(ctx, d.t.config.bar, d.t.config.off+uint64(off), p); err != nil {
		return fmt.Errorf("virtio: write configuration: %w", err)
	}
	return nil
}

func (d *Device) checkConfig(off, n int) error {
	if off < 0 || uint64(off)+uint64(n) > d.t.config.size {
		return fmt.Errorf("%w: bytes %d to %d of a configuration of %d", ErrUnsupported, off, off+n, d.t.config.size)
	}
	return nil
}
