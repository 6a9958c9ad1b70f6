package nvme

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

const (
	defaultIOVA    = 4 << 30
	defaultTimeout = 30 * time.Second
	adminDepth     = 8
	// readyUnit is the unit of CAP.TO; readyGrace is added to it.
	readyUnit  = 500 * time.Millisecond
	readyGrace = time.Second
	// readyPause is the longest time between two looks at CSTS.
	readyPause = 2 * time.Millisecond
)

// Controller is a controller that is up. All methods may be called from any goroutine.
type Controller struct {
	dev     *client.Device
	mem     *client.Memory
	base    uint64 // address of mem for the device
	ourMap  bool   // Open has mapped mem
	timeout time.Duration
	ctx     context.Context // ends with the controller or the session
	cancel  context.CancelFunc

	cap         spec.Cap
	maxEntries  int // of a queue
	maxTransfer int // bytes; 0: no limit
	identity    spec.IdentifyController
	namespaces  atomic.Pointer[[]*Namespace]
	bells       doorbells
	msix        uint64 // offset of the MSI-X capability; 0: none
	msixControl uint16

	admin *executor

	queueMu sync.Mutex
	queues  []*Queue // by number

	ioMu sync.Mutex
	io   *executor

	closed atomic.Bool
	once   sync.Once
	wg     sync.WaitGroup
}

// Open brings the controller up: it is reset if it is running, and has no I/O queue afterwards but those that the driver
// makes. mem is where queues and data buffers come from (client.Memory.Alloc); it is mapped to the device if it
// is not yet. ctx bounds only the opening.
func Open(ctx context.Context, dev *client.Device, mem *client.Memory, opts ...Option) (*Controller, error) {
	o := options{iova: defaultIOVA, timeout: defaultTimeout, queues: 0xffff}
	for _, opt := range opts {
		opt(&o)
	}
	if o.queues < 1 || o.queues > 0xffff || o.timeout <= 0 || o.doorbells > Mapped {
		return nil, fmt.Errorf("%w: option", ErrInvalid)
	}
	c := &Controller{dev: dev, mem: mem, timeout: o.timeout}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.watch)
	if err := c.open(ctx, &o); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Controller) open(ctx context.Context, o *options) error {
	if err := c.mapMemory(ctx, o.iova); err != nil {
		return err
	}
	region, err := c.dev.Region(ctx, bar0)
	if err != nil {
		return err
	}
	defer region.Close()
	if region.Size < spec.RegDoorbells+16 {
		return fmt.Errorf("%w: BAR0 of %d bytes", ErrUnsupported, region.Size)
	}
	if err := c.configure(ctx); err != nil {
		return err
	}
	if err := c.readCap(ctx); err != nil {
		return err
	}
	c.bells.mode = Trap
	if o.doorbells == Auto || o.doorbells == Mapped {
		if err := c.mapDoorbells(region); err != nil && (o.doorbells == Mapped || !errors.Is(err, ErrUnsupported)) {
			return err
		}
	}
	if err := c.disable(ctx); err != nil {
		return err
	}
	if err := c.enable(ctx); err != nil {
		return err
	}
	if err := c.identifyController(ctx); err != nil {
		return err
	}
	if o.doorbells == Shadow || o.doorbells == Auto && c.bells.mode == Trap {
		if err := c.shadowDoorbells(ctx); err != nil && (o.doorbells == Shadow || !errors.Is(err, ErrUnsupported)) {
			return err
		}
	}
	if err := c.numberOfQueues(ctx, o.queues, region.Size); err != nil {
		return err
	}
	return c.Rescan(ctx)
}

func (c *Controller) mapMemory(ctx context.Context, iova uint64) error {
	if m, ok := c.dev.MappingOf(c.mem); ok {
		c.base = m.IOVA
		return nil
	}
	if err := c.dev.MapDMA(ctx, c.mem.At(iova)); err != nil {
		return fmt.Errorf("nvme: map memory: %w", err)
	}
	c.base, c.ourMap = iova, true
	return nil
}

func (c *Controller) readCap(ctx context.Context) error {
	v, err := c.dev.ReadRegion64(ctx, bar0, spec.RegCAP)
	if err != nil {
		return fmt.Errorf("nvme: read CAP: %w", err)
	}
	c.cap = spec.Cap(v)
	c.bells.stride = c.cap.DoorbellStride()
	c.maxEntries = int(c.cap.MQES()) + 1
	switch {
	case c.cap.MPSMin() != 0:
		return fmt.Errorf("%w: pages of 4 KiB (CAP %#x)", ErrUnsupported, v)
	case c.cap&spec.CapCSSNVM == 0:
		return fmt.Errorf("%w: the NVM command set (CAP %#x)", ErrUnsupported, v)
	case c.maxEntries < 2:
		return fmt.Errorf("%w: queues of %d entries", ErrUnsupported, c.maxEntries)
	}
	return nil
}

// disable takes the controller down and waits until it is.
func (c *Controller) disable(ctx context.Context) error {
	cc, err := c.dev.ReadRegion32(ctx, bar0, spec.RegCC)
	if err != nil {
		return fmt.Errorf("nvme: read CC: %w", err)
	}
	if spec.CC(cc).EN() {
		// A controller that is coming up must be let come up first (Base 2.0, 3.1.3.5).
		if err := c.waitReady(ctx, true); err != nil && !errors.Is(err, ErrFatal) {
			return err
		}
		if err := c.dev.WriteRegion32(ctx, bar0, spec.RegCC, cc&^uint32(spec.CCEnable)); err != nil {
			return fmt.Errorf("nvme: write CC: %w", err)
		}
	}
	return c.waitReady(ctx, false)
}

// enable makes the admin queue and brings the controller up.
func (c *Controller) enable(ctx context.Context) error {
	q := &Queue{c: c}
	c.queueMu.Lock()
	c.queues = []*Queue{q}
	c.queueMu.Unlock()
	entries := min(adminDepth+1, c.maxEntries)
	if err := q.prepare(QueueConfig{Depth: entries - 1, BufferSize: pageSize}, entries, entries); err != nil {
		return err
	}
	c.admin = newExecutor(q, c.timeout)
	last := uint16(entries - 1)
	if err := errors.Join(
		c.dev.WriteRegion32(ctx, bar0, spec.RegAQA, uint32(spec.NewAQA(last, last))),
		c.dev.WriteRegion64(ctx, bar0, spec.RegASQ, q.sqAddress()),
		c.dev.WriteRegion64(ctx, bar0, spec.RegACQ, q.cqAddress()),
		c.dev.WriteRegion32(ctx, bar0, spec.RegCC, uint32(spec.NewCC(true, 0, spec.SubmissionEntryExponent, spec.CompletionEntryExponent))),
	); err != nil {
		return fmt.Errorf("nvme: enable: %w", err)
	}
	return c.waitReady(ctx, true)
}

// waitReady waits until CSTS.RDY is as wanted.
func (c *Controller) waitReady(ctx context.Context, ready bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(c.cap.TO())*readyUnit+readyGrace, ErrTimeout)
	defer cancel()
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, readyPause) {
		v, err := c.dev.ReadRegion32(ctx, bar0, spec.RegCSTS)
		csts := spec.CSTS(v)
		switch {
		case err == nil && v == ^uint32(0):
			return fmt.Errorf("%w: CSTS reads all ones", ErrFatal)
		case err == nil && csts.RDY() == ready:
			return nil
		case err == nil && csts.CFS() && ready:
			return ErrFatal
		case err == nil:
			err = sleep(ctx, pause)
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if err != nil {
			return fmt.Errorf("nvme: wait for CSTS.RDY to be %v: %w", ready, err)
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

// watch wakes everybody who waits when the session ends.
func (c *Controller) watch() {
	select {
	case <-c.dev.Done():
	case <-c.ctx.Done():
	}
	c.cancel()
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	for _, q := range c.queues {
		if q != nil && q.irq != nil {
			q.irq.Signal()
		}
	}
}

// Err is nil while the controller can be used, then ErrClosed or why the session has ended.
func (c *Controller) Err() error {
	if c.closed.Load() {
		return ErrClosed
	}
	select {
	case <-c.dev.Done():
		return c.dev.Err()
	default:
		return nil
	}
}

// Doorbells says how I/O queues are rung: Trap, Shadow or Mapped.
func (c *Controller) Doorbells() DoorbellMode { return c.bells.mode }

// Identify is what the controller said of itself when it was opened.
func (c *Controller) Identify() spec.IdentifyController { return c.identity }

// MaxTransfer is the largest transfer of one command in bytes, 0 if there is no limit.
func (c *Controller) MaxTransfer() int { return c.maxTransfer }

// Queues is how many I/O queues there can be, those of the driver itself included: it makes one for the namespaces when
// the first of them is used.
func (c *Controller) Queues() int {
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	return len(c.queues) - 1
}

func (c *Controller) alloc(size uint64) (client.Chunk, error) {
	chunk, err := c.mem.Alloc(size, pageSize)
	if err != nil {
		return chunk, fmt.Errorf("nvme: allocate: %w", err)
	}
	return chunk, nil
}

// iova is the address of a chunk for the device.
func (c *Controller) iova(chunk client.Chunk) uint64 { return c.base + chunk.Offset }
