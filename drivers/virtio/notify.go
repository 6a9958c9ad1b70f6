package virtio

import (
	"context"
	"errors"
	"fmt"

	"vfiouser/client"
	"vfiouser/devices/virtio/spec"
)

// NotifyMode says how the device is told of new buffers (4.1.5.2).
type NotifyMode uint8

const (
	// Auto takes mapped notifications if the device lets them be mapped, else messages.
	Auto NotifyMode = iota
	// Trap sends a message, without waiting for an answer.
	Trap
	// Mapped stores to the notification area through a mapping.
	Mapped
)

// String is the name of the mode.
func (m NotifyMode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Trap:
		return "trap"
	case Mapped:
		return "mapped"
	}
	return "unknown"
}

// notifier knows how notifications are given.
type notifier struct {
	mapped *client.MappedRegion // nil: by message
}

func (n *notifier) open(ctx context.Context, t *transport, mode NotifyMode) error {
	if mode == Trap {
		return nil
	}
	err := n.mmap(ctx, t)
	if mode == Auto && errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

// mmap maps the area of the BAR that holds all of the notification structure, if there is one.
func (n *notifier) mmap(ctx context.Context, t *transport) error {
	region, err := t.dev.Region(ctx, t.notify.bar)
	if err != nil {
		return err
	}
	defer region.Close()
	for i, a := range region.Areas {
		if !region.Writable() || a.Offset > t.notify.off || t.notify.off-a.Offset > a.Size || t.notify.size > a.Size-(t.notify.off-a.Offset) {
			continue
		}
		n.mapped, err = region.Mmap(i)
		return err
	}
	return fmt.Errorf("%w: notifications cannot be mapped", ErrUnsupported)
}

func (n *notifier) close() {
	if n.mapped != nil {
		_ = n.mapped.Close()
	}
}

// Notify says how the device is told of new buffers: Trap or Mapped.
func (d *Device) Notify() NotifyMode {
	if d.notifier.mapped != nil {
		return Mapped
	}
	return Trap
}

// bell is a queue's notification address.
type bell struct {
	off   uint64 // in the BAR
	wide  bool   // with NOTIFICATION_DATA
	index uint16
	b     [2]byte
}

// ring notifies the device that next is where the next descriptor will be made available.
func (q *Queue) ring(next uint16) error {
	d, b := q.d, &q.bell
	q.notifications++
	switch {
	case d.notifier.mapped != nil && b.wide:
		d.notifier.mapped.Store32(b.off, spec.Notification(b.index, next))
		return nil
	case d.notifier.mapped != nil:
		d.notifier.mapped.Store16(b.off, b.index)
		return nil
	}
	var err error
	if b.wide {
		err = d.t.dev.PostRegion32(d.ctx, d.t.notify.bar, b.off, spec.Notification(b.index, next))
	} else {
		b.b = [2]byte{byte(b.index), byte(b.index >> 8)}
		err = d.t.dev.PostRegion(d.ctx, d.t.notify.bar, b.off, b.b[:])
	}
	if err == nil {
		return nil
	}
	if lost := d.Err(); lost != nil {
		return lost
	}
	return fmt.Errorf("virtio: notify: %w", err)
}
