package virtio

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio/spec"
)

const (
	defaultIOVA    = 4 << 30
	defaultTimeout = 30 * time.Second
	// pollPause is the longest time between two looks at a register that is to change.
	pollPause = 2 * time.Millisecond
)

// Command register of the configuration space (PCI Local Bus 3.0, 6.2.2).
const (
	pciCommand       = 0x04
	commandMemory    = 1 << 1
	commandBusMaster = 1 << 2
	commandNoINTx    = 1 << 10
)

// Options of Open. The zero value is good for any device.
type Options struct {
	Type uint16 // the type that the device must have; 0: any
	// IOVA is where the memory is mapped if it is not mapped to the device yet; 0 means 4 GiB.
	IOVA uint64
	// Timeout bounds resets, and the messages of Close; 0 means 30 s.
	Timeout time.Duration
	// Notify says how the device is told of new buffers.
	Notify NotifyMode
	// ConfigChanged is called after each configuration change interrupt, by one goroutine. nil, or a device without MSI-X: no
	// such interrupts are asked for.
	ConfigChanged func(*Device)
}

// Device is a virtio device with a driver. Its methods may be called from any goroutine.
type Device struct {
	t        transport
	mem      *client.Memory
	base     uint64 // address of mem for the device
	ourMap   bool   // Open has mapped mem
	kind     uint16
	vectors  int // of MSI-X
	timeout  time.Duration
	ctx      context.Context // ends with the device or the session
	cancel   context.CancelFunc
	offered  uint64
	notifier notifier
	changed  func(*Device)
	config   *client.Interrupts // of the configuration vector; nil: none

	mu       sync.Mutex // held while the common configuration is used
	features uint64
	status   spec.Status // as the driver has set it
	queues   map[int]*Queue

	failure atomic.Pointer[error] // DEVICE_NEEDS_RESET
	closed  atomic.Bool
	once    sync.Once
	wg      sync.WaitGroup
}

// Open finds the device's structures, resets it, and sets ACKNOWLEDGE and DRIVER. mem is where queues come from
// (client.Memory.Alloc); it is mapped to the device if it is not yet. ctx bounds only the opening. Close the device in
// the end; dev and mem stay the caller's.
//
// Errors: ErrUnsupported if it is no modern virtio device or another type, ErrDevice if its structures make no sense, ErrTimeout,
// and those of package client.
func Open(ctx context.Context, dev *client.Device, mem *client.Memory, o Options) (*Device, error) {
	if o.IOVA == 0 {
		o.IOVA = defaultIOVA
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Timeout < 0 || o.Notify > Mapped {
		return nil, fmt.Errorf("%w: option", ErrInvalid)
	}
	d := &Device{t: transport{dev: dev}, mem: mem, timeout: o.Timeout, changed: o.ConfigChanged, queues: map[int]*Queue{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if err := d.open(ctx, &o); err != nil {
		_ = d.Close()
		return nil, err
	}
	d.wg.Go(d.watch)
	return d, nil
}

func (d *Device) open(ctx context.Context, o *Options) error {
	var err error
	if d.kind, err = d.t.find(ctx, o.Type); err != nil {
		return err
	}
	if err := d.mapMemory(ctx, o.IOVA); err != nil {
		return err
	}
	if err := d.t.command(ctx, pciCommand, commandMemory|commandBusMaster|commandNoINTx, 0); err != nil {
		return err
	}
	if err := d.notifier.open(ctx, &d.t, o.Notify); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.reset(ctx); err != nil {
		return err
	}
	if err := d.addStatus(ctx, spec.StatusAcknowledge); err != nil {
		return err
	}
	if err := d.addStatus(ctx, spec.StatusDriver); err != nil {
		return err
	}
	if d.offered, err = d.t.features(ctx); err != nil {
		return err
	}
	return d.openInterrupts(ctx)
}

func (d *Device) mapMemory(ctx context.Context, iova uint64) error {
	if m, ok := d.t.dev.MappingOf(d.mem); ok {
		d.base = m.IOVA
		return nil
	}
	if err := d.t.dev.MapDMA(ctx, d.mem.At(iova)); err != nil {
		return fmt.Errorf("virtio: map memory: %w", err)
	}
	d.base, d.ourMap = iova, true
	return nil
}

// reset resets the device and waits until that is done (4.1.4.3.2). d.mu is held.
func (d *Device) reset(ctx context.Context) error {
	d.status, d.features = 0, 0
	if err := d.t.setStatus(ctx, 0); err != nil {
		return fmt.Errorf("virtio: reset: %w", err)
	}
	return d.await(ctx, "reset", func(ctx context.Context) (bool, error) {
		s, err := d.t.status(ctx)
		return s == 0, err
	})
}

// await asks again and again whether something is done.
func (d *Device) await(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout, ErrTimeout)
	defer cancel()
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, pollPause) {
		ok, err := done(ctx)
		if err == nil && ok {
			return nil
		}
		if err == nil {
			err = sleep(ctx, pause)
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if err != nil {
			return fmt.Errorf("virtio: %s: %w", what, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Device) addStatus(ctx context.Context, s spec.Status) error {
	if err := d.t.setStatus(ctx, d.status|s); err != nil {
		return fmt.Errorf("virtio: set status %v: %w", d.status|s, err)
	}
	d.status |= s
	return nil
}

// Type is the type of the device (5).
func (d *Device) Type() uint16 { return d.kind }

// Offered are the feature bits that the device offers.
func (d *Device) Offered() uint64 { return d.offered }

// Features are the feature bits that were negotiated; 0 before.
func (d *Device) Features() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.features
}

// Negotiate accepts features, which must be offered and have VERSION_1 among them (2.2, 3.1.1). ErrUnsupported if the device does
// not want this set: open it anew to try another one. Call it once.
func (d *Device) Negotiate(ctx context.Context, features uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if features&^d.offered != 0 {
		return fmt.Errorf("%w: features %#x", ErrUnsupported, features&^d.offered)
	}
	if features&spec.FeatureVersion1 == 0 || d.status.Has(spec.StatusFeaturesOK) {
		return fmt.Errorf("%w: features %#x", ErrInvalid, features)
	}
	if err := d.t.setFeatures(ctx, features); err != nil {
		return fmt.Errorf("virtio: write features: %w", err)
	}
	if err := d.addStatus(ctx, spec.StatusFeaturesOK); err != nil {
		return err
	}
	s, err := d.t.status(ctx)
	if err != nil {
		return fmt.Errorf("virtio: read status: %w", err)
	}
	if !s.Has(spec.StatusFeaturesOK) {
		return fmt.Errorf("%w: the set of features %#x", ErrUnsupported, features)
	}
	d.features = features
	return nil
}

// Ready starts the device (DRIVER_OK). Queues exist before, except those that are made again after they were reset.
func (d *Device) Ready(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addStatus(ctx, spec.StatusDriverOK)
}

// Err is nil while the device can be used, then ErrClosed, ErrNeedsReset, or why the session has ended.
func (d *Device) Err() error {
	if d.closed.Load() {
		return ErrClosed
	}
	select {
	case <-d.t.dev.Done():
		return d.t.dev.Err()
	default:
	}
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Vectors is how many MSI-X vectors the device has. Queue i uses vector i+1.
func (d *Device) Vectors() int { return d.vectors }

// MaxQueueSize is the largest number of entries of a queue.
func (d *Device) MaxQueueSize(ctx context.Context, index int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.queueSize(ctx, index)
	return int(n), err
}

// ConfigSize is the size of the device-specific configuration in bytes.
func (d *Device) ConfigSize() int { return int(d.t.config.size) }

// alloc gives memory of the device's, zeroed.
func (d *Device) alloc(size, align uint64) (client.Chunk, error) {
	c, err := d.mem.Alloc(size, align)
	if err != nil {
		return c, fmt.Errorf("virtio: allocate: %w", err)
	}
	return c, nil
}

// Addr is the device's address of a chunk of its memory.
func (d *Device) Addr(c client.Chunk) uint64 { return d.base + c.Offset }

// Close resets the device, so that it lets go of the memory, and frees everything of the driver; no queue may be in use any more.
// After the session's end it only frees. Closing again does nothing.
func (d *Device) Close() (err error) {
	d.once.Do(func() { err = d.close() })
	return err
}

func (d *Device) close() error {
	d.closed.Store(true)
	d.cancel()
	d.wg.Wait()
	ctx, cancel := context.WithTimeoutCause(context.Background(), d.timeout, ErrTimeout)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.t.dev.Err() == nil {
		if d.t.common.size != 0 {
			err = d.reset(ctx)
		}
		err = errors.Join(err, d.closeInterrupts(ctx))
	}
	if d.config != nil {
		err = errors.Join(err, d.config.Close(ctx))
	}
	if d.ourMap && d.t.dev.Err() == nil {
		err = errors.Join(err, d.t.dev.UnmapDMA(ctx, d.base, d.mem.Size()))
	}
	lost := d.t.dev.Err() != nil
	if lost {
		err = nil
	}
	for _, q := range d.queues {
		q.release(err == nil) // else the device may still write to its memory: nobody gets it again
	}
	clear(d.queues)
	d.notifier.close()
	if err != nil {
		return fmt.Errorf("virtio: close: %w", err)
	}
	return nil
}
