package virtio

import (
	"context"
	"fmt"

	"vfiouser/client"
	"vfiouser/devices/virtio/spec"
)

// lossRounds is how many times in a row a queue is polled in vain before it is asked whether the device is still there.
const lossRounds = 64

// QueueConfig describes a virtqueue.
type QueueConfig struct {
	// Size is the number of entries; 0 means as many as the device has. It must not exceed that, and be a power of two
	// unless the ring is packed.
	Size int
	// Segments is how many segments a chain may have, at most; 0 means 1.
	Segments int
	// Interrupts has the device signal used buffers, for Wait. Without them the queue can only be polled.
	Interrupts bool
}

// Queue is a virtqueue. It belongs to one goroutine.
type Queue struct {
	*Ring // replaced by Disable

	d     *Device
	index int
	cfg   RingConfig
	mem   client.Chunk
	irq   *client.Eventfd // nil: no interrupts
	bell  bell
	vain  uint32 // empty polls in a row

	notifications uint64
}

// NewQueue makes virtqueue index: after Negotiate, and before Ready. It lives until the device is closed.
func (d *Device) NewQueue(ctx context.Context, index int, cfg QueueConfig) (*Queue, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Err(); err != nil {
		return nil, err
	}
	if index < 0 || index > 0xffff || d.queues[index] != nil || !d.status.Has(spec.StatusFeaturesOK) {
		return nil, fmt.Errorf("%w: queue %d", ErrInvalid, index)
	}
	q := &Queue{d: d, index: index}
	if err := q.prepare(ctx, cfg); err != nil {
		q.release(true)
		return nil, fmt.Errorf("virtio: queue %d: %w", index, err)
	}
	d.queues[index] = q // from here on the device may use its memory
	if err := q.enable(ctx); err != nil {
		return nil, fmt.Errorf("virtio: queue %d: %w", index, err)
	}
	return q, nil
}

// prepare makes all that the queue has in this process. d.mu is held.
func (q *Queue) prepare(ctx context.Context, cfg QueueConfig) error {
	d := q.d
	size, err := d.queueSize(ctx, q.index)
	if err != nil {
		return err
	}
	if cfg.Size == 0 {
		cfg.Size = int(size)
	}
	if cfg.Size < 1 || cfg.Size > int(size) {
		return fmt.Errorf("%w: %d entries, the device has at most %d", ErrInvalid, cfg.Size, size)
	}
	has := func(f uint64) bool { return d.features&f != 0 }
	q.cfg = RingConfig{Size: uint16(cfg.Size), Segments: cfg.Segments, Packed: has(spec.FeatureRingPacked),
		Indirect: has(spec.FeatureIndirectDesc), EventIdx: has(spec.FeatureEventIdx), InOrder: has(spec.FeatureInOrder)}
	bytes, err := q.cfg.MemorySize()
	if err != nil {
		return err
	}
	if q.mem, err = d.alloc(bytes, 0); err != nil {
		return err
	}
	if q.Ring, err = NewRing(q.cfg, q.mem.Bytes, d.Addr(q.mem)); err != nil {
		return err
	}
	off, err := d.t.read16(ctx, spec.QueueNotifyOff)
	if err != nil {
		return err
	}
	q.bell = bell{off: uint64(off) * uint64(d.t.multiplier), wide: has(spec.FeatureNotificationData), index: uint16(q.index)}
	width := uint64(2)
	if q.bell.wide {
		width = 4
	}
	if q.bell.off%width != 0 || width > d.t.notify.size || q.bell.off > d.t.notify.size-width {
		return fmt.Errorf("%w: notification address at %d of %d", ErrDevice, q.bell.off, d.t.notify.size)
	}
	q.bell.off += d.t.notify.off
	if !cfg.Interrupts {
		return nil
	}
	if q.index+1 >= d.vectors {
		return fmt.Errorf("%w: %d interrupt vectors", ErrUnsupported, d.vectors)
	}
	q.irq, err = client.NewEventfd()
	if err != nil {
		return err
	}
	return d.t.dev.EnableIRQ(ctx, client.IRQMSIX, q.index+1, q.irq.FD())
}

// queueSize selects a queue and tells the largest size that it may have. d.mu is held.
func (d *Device) queueSize(ctx context.Context, index int) (uint16, error) {
	n, err := d.t.read16(ctx, spec.NumQueues)
	if err != nil {
		return 0, err
	}
	if index >= int(n) {
		return 0, fmt.Errorf("%w: the device has %d queues", ErrUnsupported, n)
	}
	if err := d.t.write16(ctx, spec.QueueSelect, uint16(index)); err != nil {
		return 0, err
	}
	size, err := d.t.read16(ctx, spec.QueueSize)
	if err == nil && (size == 0 || size > spec.MaxQueueSize) {
		err = fmt.Errorf("%w: the queue has %d entries", ErrUnsupported, size)
	}
	return size, err
}

// enable tells the device of the queue, which is selected (4.1.5.1.3). d.mu is held.
func (q *Queue) enable(ctx context.Context) error {
	t := &q.d.t
	if err := t.write16(ctx, spec.QueueSize, q.cfg.Size); err != nil {
		return err
	}
	if q.irq != nil {
		if err := q.d.assign(ctx, spec.QueueMSIXVector, q.index+1); err != nil {
			return err
		}
	}
	desc, driver, device := q.Addresses()
	for _, w := range []struct{ off, v uint64 }{{spec.QueueDesc, desc}, {spec.QueueDriver, driver}, {spec.QueueDevice, device}} {
		if err := t.write64(ctx, w.off, w.v); err != nil {
			return err
		}
	}
	return t.write16(ctx, spec.QueueEnable, 1)
}

// Reset is Disable and Enable.
func (q *Queue) Reset(ctx context.Context) error {
	if err := q.Disable(ctx); err != nil {
		return err
	}
	return q.Enable(ctx)
}

// Disable takes the queue away from the device, which needs RING_RESET (2.6.1, 4.1.4.3). What was under way is lost, and its memory
// the driver's again; the ring is empty. No other method of the queue may run at the same time, and none but Enable afterwards.
func (q *Queue) Disable(ctx context.Context) error {
	return q.change(ctx, "disable", q.disable)
}

// Enable gives the device the queue again after Disable, with an empty ring of the same size.
func (q *Queue) Enable(ctx context.Context) error {
	return q.change(ctx, "enable", q.enable)
}

func (q *Queue) change(ctx context.Context, what string, do func(context.Context) error) error {
	d := q.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Err(); err != nil {
		return err
	}
	if d.features&spec.FeatureRingReset == 0 || d.t.common.size < spec.QueueReset+2 {
		return fmt.Errorf("%w: reset of one queue", ErrUnsupported)
	}
	err := d.t.write16(ctx, spec.QueueSelect, uint16(q.index))
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		return fmt.Errorf("virtio: %s queue %d: %w", what, q.index, err)
	}
	return nil
}

func (q *Queue) disable(ctx context.Context) error {
	t := &q.d.t
	if err := t.write16(ctx, spec.QueueReset, 1); err != nil {
		return err
	}
	if err := q.d.await(ctx, "reset of a queue", func(ctx context.Context) (bool, error) {
		resetting, err := t.read16(ctx, spec.QueueReset)
		if err != nil || resetting != 0 {
			return false, err
		}
		enabled, err := t.read16(ctx, spec.QueueEnable)
		return enabled == 0, err
	}); err != nil {
		return err
	}
	clear(q.mem.Bytes)
	ring, err := NewRing(q.cfg, q.mem.Bytes, q.d.Addr(q.mem))
	if err != nil {
		return err
	}
	q.Ring, q.vain = ring, 0
	return nil
}

// Index is the queue's number.
func (q *Queue) Index() int { return q.index }

// Interrupts says whether the queue was made with interrupts, for Wait.
func (q *Queue) Interrupts() bool { return q.irq != nil }

// Notifications is how often the device was notified.
func (q *Queue) Notifications() uint64 { return q.notifications }

// Kick makes what was added visible to the device and, if the device wants that, notifies it. The error says that the queue is out of
// use.
func (q *Queue) Kick() error {
	if !q.Publish() {
		return q.Ring.err
	}
	return q.ring(q.nextPlace())
}

// Reap is Ring.Reap, and tells from time to time, when there is nothing, that the device is gone.
func (q *Queue) Reap(done []Used) (int, error) {
	n, err := q.Ring.Reap(done)
	if n > 0 || err != nil {
		q.vain = 0
		return n, err
	}
	if q.vain++; q.vain%lossRounds == 0 {
		return 0, q.d.Err()
	}
	return 0, nil
}

// Wait waits until there is something for Reap. Only for a queue with interrupts.
func (q *Queue) Wait(ctx context.Context) error {
	if q.irq == nil {
		return fmt.Errorf("%w: the queue has no interrupt", ErrUnsupported)
	}
	for {
		if q.EnableInterrupts() {
			q.DisableInterrupts()
			return nil
		}
		if err := q.d.Err(); err != nil {
			return err
		}
		if _, err := q.irq.Wait(ctx); err != nil {
			if lost := q.d.Err(); lost != nil {
				return lost
			}
			return err
		}
	}
}

// release frees what the queue has in this process; its memory only if the device cannot use it any more.
func (q *Queue) release(memory bool) {
	if memory {
		q.d.mem.Free(q.mem)
	}
	if q.irq != nil {
		_ = q.irq.Close()
	}
}
