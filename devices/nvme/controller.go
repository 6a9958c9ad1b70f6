package nvme

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// Controller is an NVMe controller; it implements engine.Device. What is here stays
// from client to client, what belongs to one client is in its host.
type Controller struct {
	cfg       Config
	subsystem *Subsystem
	index     int // of the subsystem's controllers
	// table has the namespaces that are attached, by number less one.
	table     atomic.Pointer[[]*namespace]
	cap       spec.Cap
	space     *pci.Space     // the engine's, on the reactor
	msix      *pci.MSIXTable // likewise
	doorbells doorbellPage
	regs      registers
	errors    errorLog
	smart     smartLog

	interruptCounts interruptCounts

	// writeThrough: the host has disabled the volatile write cache.
	writeThrough atomic.Bool
	// extendedFormats: the host has enabled them (Host Behavior Support, LBAFEE).
	extendedFormats atomic.Bool
	commands        [256]adminCommand
	features        *[256]feature
	logs            *[256]logPage
	telemetry       telemetry             // of the control goroutine, as saved
	clock           atomic.Pointer[clock] // of the host
	saved           featureValues         // of the control goroutine of the attached client
	host            *host                 // reactor only; nil without a client

	mu     sync.Mutex
	closed bool
	hosts  sync.WaitGroup // control goroutines
}

// session is what the controller uses of an *engine.Session.
type session interface {
	Memory() *dma.Table
	IRQ() *irq.Set
	ReadDMA(ctx context.Context, iova uint64, p []byte) error
	WriteDMA(ctx context.Context, iova uint64, p []byte) error
	Context() context.Context
	Logger() *slog.Logger
	Fail(err error)
}

// worker is what the controller uses of an *engine.Worker.
type worker interface {
	Attach(src engine.Source, opt engine.SourceOptions)
	Detach(src engine.Source)
	Wake()
	Kick(src engine.Source)
}

// ErrClosed is returned to a client that comes after Close.
var ErrClosed = errors.New("nvme: controller is closed")

// New makes a controller. It owns the backends if there is no error. Register it
// with an engine, and Close it after its endpoint.
func New(cfg Config) (_ *Controller, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, subsystem: cfg.Subsystem, commands: adminCommands(), features: featureTable(), logs: logTable(), saved: featureValues{}}
	if c.subsystem == nil {
		c.subsystem, err = NewSubsystem(SubsystemConfig{
			Serial: cfg.Serial, Model: cfg.Model, Firmware: cfg.Firmware, Namespaces: cfg.Namespaces,
		})
		if err != nil {
			return nil, err
		}
	}
	c.cap = spec.NewCap(uint16(cfg.QueueEntries-1), readyTimeout, 0, 0, 0, spec.CapCQR|spec.CapAMSWeighted|spec.CapNSSRS|spec.CapCSSNVM|spec.CapCRWMS)
	c.smart.start = time.Now()
	c.smart.powerCycles.Store(1)
	c.clock.Store(&clock{origin: c.smart.start})
	if err := c.newSpace(); err != nil {
		return nil, err
	}
	if err := c.subsystem.join(c); err != nil {
		return nil, err
	}
	err = c.recallRecords()
	if err == nil {
		err = c.doorbells.open(cfg.Doorbells == Mmap)
	}
	if err != nil {
		c.subsystem.part(c)
		return nil, err
	}
	c.keepHealth(false)
	c.subsystem.resumeSanitize(c)
	return c, nil
}

// Close waits for the last client's I/O to end, and closes the subsystem, with its
// backends, if it is the controller's own. Close the endpoint before. It is idempotent.
func (c *Controller) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	c.hosts.Wait()
	if !first {
		return nil
	}
	c.subsystem.part(c)
	err := c.doorbells.close()
	if c.cfg.Subsystem == nil {
		err = errors.Join(c.subsystem.Close(), err)
	}
	return err
}

// NewDevice takes a client: its controller is a disabled one, with the state that
// outlives a reset.
func (c *Controller) NewDevice(s *engine.Session) error {
	e := s.Engine()
	return c.attach(s, func() worker { return e.PickWorker() })
}

func (c *Controller) attach(s session, pick func() worker) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	var before <-chan struct{}
	if c.host != nil {
		before = c.host.done
	}
	c.regs.reset()
	h := newHost(c, s, pick)
	c.host = h
	c.hosts.Add(1)
	go func() {
		defer c.hosts.Done()
		if before != nil {
			<-before
		}
		h.run()
	}()
	return nil
}

// DestroyDevice lets the client go. Its queues are forgotten, the state of the drive
// stays.
func (c *Controller) DestroyDevice(*engine.Session) { c.detach() }

func (c *Controller) detach() { c.host.ask(func(r *request) { r.quit = true }) }

// UpdateStatus follows changes of the memory table and of the interrupts.
func (c *Controller) UpdateStatus(_ *engine.Session, what engine.Update) { c.update(what) }

func (c *Controller) update(what engine.Update) {
	h := c.host
	if what&engine.UpdateInterrupts != 0 {
		h.interrupts.update()
		h.kickAll()
	}
	if what&engine.UpdateMemory != 0 && h.ready.Load() {
		h.ask(func(r *request) { r.place = true })
	}
}

// LockDataPath detaches all queues from their workers and waits for I/O in flight,
// or lets them go on.
func (c *Controller) LockDataPath(_ *engine.Session, hold bool, done func()) { c.lock(hold, done) }

func (c *Controller) lock(hold bool, done func()) {
	h := c.host
	h.ask(func(r *request) {
		r.tasks = append(r.tasks, func() {
			h.setHeld(hold)
			done()
		})
	})
}

// ResetDevice puts the registers back to power-on; the queues follow on the control
// goroutine, which does nothing else before.
func (c *Controller) ResetDevice(*engine.Session) { c.reset() }

func (c *Controller) reset() { c.host.restart(0) }
